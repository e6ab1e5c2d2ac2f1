// CUDA's DeviceOps: its memory, its copies and its order; what it computes is tested kernel by kernel
// (decoder_cuda_test.cc, paged_attention_cuda_test.cc). Skips without a device.
#include "kernels/device_ops_cuda.h"

#include <gtest/gtest.h>

#include <cstdint>
#include <numeric>
#include <thread>
#include <vector>

#include "tests/kernels/cuda_fixture.h"

namespace kva {
namespace {

using CudaDeviceOps = CudaFixture;

std::vector<uint32_t> numbers(std::size_t count, uint32_t first) {
  std::vector<uint32_t> values(count);
  std::iota(values.begin(), values.end(), first);
  return values;
}
int64_t bytes_of(const std::vector<uint32_t>& values) {
  return static_cast<int64_t>(values.size() * sizeof(uint32_t));
}

TEST_F(CudaDeviceOps, NamesItselfAndItsMemory) {
  EXPECT_FALSE(device->name().empty());
  const DeviceMemory memory = device->memory();
  EXPECT_GT(memory.total_bytes, int64_t{1} << 30);
  EXPECT_LE(memory.free_bytes, memory.total_bytes);
}

// Less than a pinned part, just one, and several with a rest.
TEST_F(CudaDeviceOps, BytesComeBackAsTheyWent) {
  for (const std::size_t count : {1, 3, 1 << 20, (1 << 20) + 1, 5 * (1 << 20) + 7}) {
    const std::vector<uint32_t> sent = numbers(count, 11);
    void* first = device->allocate(bytes_of(sent));
    void* second = device->allocate(bytes_of(sent));
    ASSERT_TRUE(first && second);
    EXPECT_EQ(reinterpret_cast<uintptr_t>(first) % 256, 0U);
    device->upload(first, sent.data(), bytes_of(sent));
    device->copy(second, first, bytes_of(sent));
    std::vector<uint32_t> found(count);
    device->download(found.data(), second, bytes_of(sent));
    EXPECT_EQ(found, sent) << count << " numbers";
    device->free(first);
    device->free(second);
  }
}

// An upload's source changes as soon as the call returns, many times before the device can have read it.
TEST_F(CudaDeviceOps, SourcesOfUploadsMayChange) {
  constexpr std::size_t kRows = 3000;
  constexpr int64_t kRowBytes = 1024 * 4;
  auto* memory = static_cast<std::byte*>(device->allocate(kRows * kRowBytes));
  ASSERT_NE(memory, nullptr);
  std::vector<uint32_t> row;
  for (std::size_t r = 0; r < kRows; ++r) {
    row = numbers(1024, static_cast<uint32_t>(r));
    device->upload(memory + static_cast<int64_t>(r) * kRowBytes, row.data(), kRowBytes);
  }
  std::vector<uint32_t> found(kRows * 1024);
  device->download(found.data(), memory, kRows * kRowBytes);
  for (std::size_t r = 0; r < kRows; ++r)
    for (std::size_t c = 0; c < 1024; ++c) ASSERT_EQ(found[r * 1024 + c], r + c) << "row " << r;
  device->free(memory);
}

TEST_F(CudaDeviceOps, MemoryIsForAnyThread) {
  std::vector<std::thread> threads;
  std::vector<int> right(4, 0);
  for (std::size_t t = 0; t < right.size(); ++t)
    threads.emplace_back([&, t] {
      const std::vector<uint32_t> sent = numbers(300000, static_cast<uint32_t>(t) * 1000000);
      for (int round = 0; round < 20; ++round) {
        void* memory = device->allocate(bytes_of(sent));
        std::vector<uint32_t> found(sent.size());
        device->upload(memory, sent.data(), bytes_of(sent));
        device->download(found.data(), memory, bytes_of(sent));
        device->free(memory);
        right[t] += found == sent ? 1 : 0;
      }
    });
  for (std::thread& thread : threads) thread.join();
  EXPECT_EQ(right, std::vector<int>(right.size(), 20));
}

TEST_F(CudaDeviceOps, OutOfMemoryIsNoErrorAndLeavesTheDeviceUsable) {
  const DeviceMemory memory = device->memory();
  EXPECT_EQ(device->allocate(memory.total_bytes * 2), nullptr);
  void* half = device->allocate(memory.free_bytes / 2);
  ASSERT_NE(half, nullptr);
  EXPECT_EQ(device->allocate(memory.free_bytes), nullptr);
  device->free(half);
  // In pieces it was not: what is freed can be had again in one.
  void* most = device->allocate(memory.free_bytes / 4 * 3);
  EXPECT_NE(most, nullptr);
  device->free(most);
  device->wait();
}

// As LaneDevice.ReplaysWithNewContents; and a graph whose product has a bias and a workspace.
TEST_F(CudaDeviceOps, ReplaysWithNewContents) {
  auto* x = static_cast<float*>(device->allocate(1024));
  auto* y = static_cast<float*>(device->allocate(1024));
  auto* weights = static_cast<float*>(device->allocate(4096));
  const std::vector<float> ones(32 * 32, 1.0f);
  device->upload(weights, ones.data(), 4096);
  for (const float value : {1.0f, 2.0f, 3.0f, 4.0f}) {
    const std::vector<float> values(32, value);
    device->upload(x, values.data(), 128);
    device->begin_recording();
    device->add({.x = {x, DType::kF32, 1, 32, 32}, .factor = 3.0f});
    device->copy(y, x, 128);
    device->multiply({.x = {y, DType::kF32, 1, 32, 32},
                      .weights = {weights, DType::kF32, 32, 32},
                      .bias = weights,
                      .out = {x, DType::kF32, 1, 32, 32},
                      .adds = true});
    device->end_recording();
    std::vector<float> found(32);
    device->download(found.data(), x, 128);
    EXPECT_EQ(found, std::vector<float>(32, 3 * value + 96 * value + 1));
  }
  EXPECT_EQ(device->recordings(), (RecordingCounts{.recorded = 1, .replayed = 3, .launched = 1}));
  for (void* memory : {x, y, weights}) device->free(memory);
}

TEST_F(CudaDeviceOps, ChoosesTheLikeliestToken) {
  std::vector<float> logits(50000, -1.0f);
  logits[4321] = 2.0f;
  auto* memory = static_cast<float*>(device->allocate(static_cast<int64_t>(logits.size() * 4) + 256));
  ASSERT_NE(memory, nullptr);
  auto* token = reinterpret_cast<int32_t*>(memory + logits.size());
  device->upload(memory, logits.data(), static_cast<int64_t>(logits.size() * 4));
  for (const double temperature : {0.0, 1e-6}) {
    device->choose({.logits = memory, .vocabulary = 50000, .top_k = 5, .temperature = temperature}, token);
    int32_t found = -1;
    device->download(&found, token, 4);
    EXPECT_EQ(found, 4321);
  }
  EXPECT_GT(device->workspace_bytes(), 0);
  device->free(memory);
}

}  // namespace
}  // namespace kva
