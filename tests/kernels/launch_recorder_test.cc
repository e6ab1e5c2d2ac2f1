#include "kernels/launch_recorder.h"

#include <gtest/gtest.h>

#include <string>
#include <vector>

namespace kva {
namespace {

// Writes down what reaches the device: a copy of n bytes is "n", a recording of them "[n m]".
class Written final : public Launcher {
 public:
  void launch(const Launch& launch) override { add(text(launch)); }
  std::unique_ptr<Recording> record(std::span<const Launch> launches) override {
    if (!records) return nullptr;
    auto made = std::make_unique<Made>();
    for (const Launch& launch : launches) made->text += (made->text.empty() ? "" : " ") + text(launch);
    return made;
  }
  void replay(Recording& recording) override { add("[" + static_cast<Made&>(recording).text + "]"); }

  std::string take() { return std::exchange(all_, ""); }

  bool records = true;

 private:
  struct Made : Recording {
    std::string text;
  };
  static std::string text(const Launch& launch) { return std::to_string(std::get<CopyJob>(launch).bytes); }
  void add(const std::string& text) { all_ += (all_.empty() ? "" : " ") + text; }

  std::string all_;
};

class LaunchRecorder_ : public ::testing::Test {
 protected:
  void copy(int64_t bytes) { recorder.take(CopyJob{nullptr, nullptr, bytes}); }
  // What reaches the device by the end of these copies.
  std::string recorded(const std::vector<int64_t>& copies) {
    recorder.begin();
    for (const int64_t bytes : copies) copy(bytes);
    recorder.end();
    return device.take();
  }

  Written device;
  LaunchRecorder recorder{device};
};

TEST_F(LaunchRecorder_, LaunchesAtOnceOutsideOfARecording) {
  copy(1);
  EXPECT_EQ(device.take(), "1");
  EXPECT_EQ(recorder.counts(), RecordingCounts());
}

TEST_F(LaunchRecorder_, RecordsWhatComesASecondTime) {
  EXPECT_EQ(recorded({1, 2}), "1 2");
  EXPECT_EQ(recorded({1, 2}), "[1 2]");
  EXPECT_EQ(recorded({1, 2}), "[1 2]");
  EXPECT_EQ(recorded({1, 3}), "1 3");
  EXPECT_EQ(recorded({1}), "1");
  EXPECT_EQ(recorded({1, 2}), "[1 2]");
  EXPECT_EQ(recorder.counts(), (RecordingCounts{.recorded = 1, .replayed = 3, .launched = 3}));
}

TEST_F(LaunchRecorder_, WhateverElseIsDoneComesInItsPlace) {
  for (int run = 0; run < 3; ++run) {
    recorder.begin();
    copy(1);
    EXPECT_EQ(device.take(), "");
    recorder.flush();
    EXPECT_EQ(device.take(), "1");
    copy(2);
    EXPECT_EQ(device.take(), "2");
    recorder.end();
    EXPECT_EQ(device.take(), "");
  }
  EXPECT_EQ(recorder.counts(), (RecordingCounts{.launched = 3}));
}

// As where an exception left a step.
TEST_F(LaunchRecorder_, ABeginningWithoutAnEnd) {
  recorder.begin();
  copy(1);
  recorder.begin();
  EXPECT_EQ(device.take(), "1");
  copy(2);
  recorder.end();
  EXPECT_EQ(device.take(), "2");
  recorder.begin();
  copy(3);
  recorder.clear();
  recorder.flush();
  EXPECT_EQ(device.take(), "");
}

TEST_F(LaunchRecorder_, KeepsThoseUsedLast) {
  recorder.keep(2);
  for (const int64_t bytes : {1, 1, 2, 2, 1, 3}) recorded({bytes});
  EXPECT_EQ(recorded({1}), "[1]");
  EXPECT_EQ(recorded({2}), "2");  // 3 came in its place
  EXPECT_EQ(recorded({3}), "3");  // and 2 in that of 3
  recorder.keep(0);
  EXPECT_EQ(recorded({3}), "3");
}

TEST_F(LaunchRecorder_, ADeviceThatCannotIsNotAskedAgain) {
  device.records = false;
  EXPECT_EQ(recorded({1}), "1");
  EXPECT_EQ(recorded({1}), "1");
  device.records = true;
  for (int run = 0; run < 3; ++run) EXPECT_EQ(recorded({1}), "1");
  EXPECT_EQ(recorder.counts().recorded, 0);
}

// Everything in a job decides: here each job differs from the first in one thing.
TEST_F(LaunchRecorder_, JobsThatDifferAreOthers) {
  float a = 0.0f, b = 0.0f;
  const DeviceRows rows{&a, DType::kF32, 1, 2, 2};
  AttentionGrid grid;
  grid.buckets = {{.keys = SideKind::kF16, .values = SideKind::kF16, .first = 0, .count = 4}};
  AttentionGrid other_kind = grid, more = grid;
  other_kind.buckets[0].keys = SideKind::kBits4;
  more.buckets[0].count = 8;
  const AttendJob attend{.grid = grid, .out = &a};
  const std::vector<Launch> launches = {
      attend,
      AttendJob{.grid = other_kind, .out = &a},
      AttendJob{.grid = more, .out = &a},
      AttendJob{.grid = grid, .out = &b},
      AttendJob{.grid = grid, .job = {.queries = &b}, .out = &a},
      AttendJob{.grid = grid, .job = {.masses = {.count = 1}}, .out = &a},
      CastJob{rows, rows},
      CastJob{rows, {&b, DType::kF32, 1, 2, 2}},
      CastJob{rows, {&a, DType::kF16, 1, 2, 2}},
      SumJob{rows, rows, 1.0f},
      SumJob{rows, rows, 2.0f},
      NormJob{.x = rows, .out = rows},
      NormJob{.x = rows, .out = rows, .centred = true},
      DeviceProduct{.x = rows, .weights = {&a, DType::kF32, 3, 2}, .out = rows},
      DeviceProduct{.x = rows, .weights = {&b, DType::kF32, 3, 2}, .out = rows},
  };
  for (std::size_t i = 0; i < launches.size(); ++i)
    for (std::size_t j = 0; j < launches.size(); ++j) EXPECT_EQ(launches[i] == launches[j], i == j);
}

}  // namespace
}  // namespace kva
