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

}  // namespace
}  // namespace kva
