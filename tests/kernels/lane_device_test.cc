#include "tests/kernels/lane_device.h"

#include <gtest/gtest.h>

#include <vector>

namespace kva {
namespace {

TEST(LaneDevice, CopiesAndGivesMemoryAgain) {
  const auto device = make_lane_device(1 << 16);
  const std::vector<int> sent = {1, 2, 3};
  std::vector<int> found(3);
  void* a = device->allocate(12);
  void* b = device->allocate(12);
  device->upload(a, sent.data(), 12);
  device->copy(b, a, 12);
  device->download(found.data(), b, 12);
  EXPECT_EQ(found, sent);
  EXPECT_EQ(device->memory().free_bytes, (1 << 16) - 512);
  EXPECT_EQ(device->allocate(1 << 16), nullptr);
  device->free(a);
  device->free(b);
  EXPECT_EQ(device->memory().free_bytes, 1 << 16);
  void* all = device->allocate(1 << 16);
  EXPECT_NE(all, nullptr);
  device->free(all);
}

TEST(LaneDeviceDeath, TheHostReadsNothing) {
  const auto device = make_lane_device(1 << 16);
  auto* numbers = static_cast<volatile float*>(device->allocate(64));
  EXPECT_DEATH((void)numbers[0], "");
  device->free(const_cast<float*>(numbers));
}

// What is recorded reads what is behind its addresses when it is replayed.
TEST(LaneDevice, ReplaysWithNewContents) {
  const auto device = make_lane_device(1 << 16);
  auto* x = static_cast<float*>(device->allocate(256));
  auto* y = static_cast<float*>(device->allocate(256));
  const auto step = [&](float value) {
    const float values[] = {value, 2 * value};
    device->upload(x, values, sizeof values);
    device->begin_recording();
    device->add({.x = {x, DType::kF32, 1, 2, 2}, .factor = 3.0f});
    device->copy(y, x, sizeof values);
    device->add({.x = {x, DType::kF32, 1, 2, 2}, .y = {y, DType::kF32, 1, 2, 2}});
    device->end_recording();
    float found[2];
    device->download(found, x, sizeof found);
    EXPECT_EQ(found[0], 6 * value);
    EXPECT_EQ(found[1], 12 * value);
  };
  for (const float value : {1.0f, 2.0f, 3.0f, 4.0f}) step(value);
  EXPECT_EQ(device->recordings(), (RecordingCounts{.recorded = 1, .replayed = 3, .launched = 1}));
  device->keep_recordings(0);
  step(5.0f);
  EXPECT_EQ(device->recordings(), (RecordingCounts{.recorded = 1, .replayed = 3, .launched = 1}));
  device->free(x);
  device->free(y);
}

// An upload in between comes after what was launched before it.
TEST(LaneDevice, WhatCannotBeRecordedKeepsItsPlace) {
  const auto device = make_lane_device(1 << 16);
  auto* x = static_cast<float*>(device->allocate(256));
  auto* y = static_cast<float*>(device->allocate(256));
  for (int run = 0; run < 3; ++run) {
    float value = 1.0f;
    device->upload(x, &value, sizeof value);
    device->begin_recording();
    device->copy(y, x, sizeof value);
    value = 7.0f;
    device->upload(x, &value, sizeof value);
    device->add({.x = {x, DType::kF32, 1, 1, 1}, .y = {y, DType::kF32, 1, 1, 1}});
    device->end_recording();
    device->download(&value, x, sizeof value);
    EXPECT_EQ(value, 8.0f);
  }
  EXPECT_EQ(device->recordings(), (RecordingCounts{.launched = 3}));
  device->free(x);
  device->free(y);
}

TEST(LaneDevice, MultipliesByHand) {
  const auto device = make_lane_device(1 << 16);
  const float x[] = {1, 2, 3, 4};
  const float weights[] = {1, 0, 0, 1, 1, -1};
  const float bias[] = {10, 20, 30};
  float out[6] = {};
  auto* memory = static_cast<float*>(device->allocate(256));
  device->upload(memory, x, sizeof x);
  device->upload(memory + 4, weights, sizeof weights);
  device->upload(memory + 10, bias, sizeof bias);
  const DeviceProduct product{.x = {memory, DType::kF32, 2, 2, 2},
                              .weights = {memory + 4, DType::kF32, 3, 2},
                              .bias = memory + 10,
                              .out = {memory + 13, DType::kF32, 2, 3, 3}};
  device->multiply(product);
  device->download(out, memory + 13, sizeof out);
  EXPECT_EQ(std::vector<float>(out, out + 6), (std::vector<float>{11, 22, 29, 13, 24, 29}));
  device->free(memory);
}

// Tiles of 64 outputs, the last of 6, and groups of 64 inputs, the last of 3: as all weights widened at once.
TEST(LaneDevice, MultipliesCodedWeightsInTiles) {
  const auto device = make_lane_device(1 << 18);
  constexpr int64_t kOutputs = 134, kInputs = 67, kRows = 2;
  std::vector<float> x(kRows * kInputs), wide(kOutputs * kInputs), bias(kOutputs), found(kRows * kOutputs);
  for (std::size_t i = 0; i < x.size(); ++i) x[i] = static_cast<float>(i % 7) - 3.0f;
  for (std::size_t i = 0; i < wide.size(); ++i) wide[i] = static_cast<float>((i * 37) % 255) - 127.0f;
  for (std::size_t i = 0; i < bias.size(); ++i) bias[i] = static_cast<float>(i);
  std::vector<int8_t> codes(wide.size());
  std::vector<float> scales(static_cast<std::size_t>(kOutputs * int8_groups(kInputs)));
  quantize_int8({wide.data(), kOutputs, kInputs}, codes.data(), scales.data());
  const auto uploaded = [&](const auto& values) {
    const auto bytes = static_cast<int64_t>(values.size() * sizeof(values[0]));
    void* memory = device->allocate(bytes);
    device->upload(memory, values.data(), bytes);
    return memory;
  };
  std::vector<void*> all = {uploaded(x), uploaded(codes), uploaded(scales), uploaded(bias), uploaded(found)};
  const WeightView coded{codes.data(), DType::kF32, kOutputs, kInputs, scales.data()};
  widen_weights(coded, wide.data());
  for (const bool adds : {false, true})
    device->multiply({.x = {all[0], DType::kF32, kRows, kInputs, kInputs},
                      .weights = {all[1], DType::kF32, kOutputs, kInputs, static_cast<float*>(all[2])},
                      .bias = static_cast<float*>(all[3]),
                      .out = {all[4], DType::kF32, kRows, kOutputs, kOutputs},
                      .adds = adds});
  device->download(found.data(), all[4], static_cast<int64_t>(found.size() * sizeof(float)));
  for (int64_t r = 0; r < kRows; ++r)
    for (int64_t o = 0; o < kOutputs; ++o) {
      float sum = 0.0f;
      for (int64_t c = 0; c < kInputs; ++c)
        sum += x[static_cast<std::size_t>(r * kInputs + c)] * wide[static_cast<std::size_t>(o * kInputs + c)];
      sum += bias[static_cast<std::size_t>(o)];
      ASSERT_EQ(found[static_cast<std::size_t>(r * kOutputs + o)], sum + sum) << r << ", " << o;
    }
  // A row that is looked up, too.
  const int32_t row = 70;
  void* index = device->allocate(4);
  device->upload(index, &row, 4);
  device->gather({.table = {all[1], DType::kF32, kOutputs, kInputs, kInputs},
                  .indices = static_cast<int32_t*>(index),
                  .out = {all[0], DType::kF32, 1, kInputs, kInputs},
                  .scales = static_cast<float*>(all[2])});
  device->download(x.data(), all[0], kInputs * int64_t{sizeof(float)});
  for (int64_t c = 0; c < kInputs; ++c)
    EXPECT_EQ(x[static_cast<std::size_t>(c)], wide[static_cast<std::size_t>(row * kInputs + c)]);
  all.push_back(index);
  for (void* memory : all) device->free(memory);
}

}  // namespace
}  // namespace kva
