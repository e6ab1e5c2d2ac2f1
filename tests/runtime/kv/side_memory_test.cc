// Side memory of a cache on a device: arrays are brought there once, counted there, and go with their codec.
#include "runtime/kv/side_memory.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <array>
#include <utility>
#include <vector>

#include "tests/error_of.h"
#include "tests/runtime/kv/device_under_test.h"

namespace kva {
namespace {

using testing::HasSubstr;

class DeviceSideMemory : public testing::Test {
 protected:
  void SetUp() override {
    if (!device) GTEST_SKIP() << "no device";
  }
  std::shared_ptr<DeviceOps> device = device_under_test(int64_t{1} << 20);
  std::shared_ptr<Backend> host = make_cpu_backend();
};

TEST_F(DeviceSideMemory, AnArrayIsBroughtOnceAndGoesWithItsOwner) {
  const std::shared_ptr<Backend> there = make_device_backend(device);
  const auto memory = std::make_shared<SideMemory>(host, there);
  {
    SideArray made = make_f16_array(memory, std::array{1.0f, 2.0f, -3.0f}, "levels");
    EXPECT_EQ(there->allocated_bytes(), 0);  // nobody reads it there
    const std::byte* at = made.on_device();
    EXPECT_EQ(made.on_device(), at);
    EXPECT_EQ(there->allocated_bytes(), there->held_bytes(6));
    EXPECT_EQ(memory->device_held_bytes(), there->allocated_bytes());
    EXPECT_EQ(memory->held_bytes(), host->allocated_bytes());
    const SideArray kept(std::move(made));
    EXPECT_EQ(kept.on_device(), at);
    std::vector<std::byte> copied(6);
    there->download(copied.data(), at, 6);
    EXPECT_TRUE(std::equal(copied.begin(), copied.end(), bytes_of(kept).begin()));
    EXPECT_EQ(memory->device_held_bytes(), there->allocated_bytes());
  }
  EXPECT_EQ(memory->device_held_bytes(), 0);
  EXPECT_EQ(there->allocated_bytes(), 0);
  EXPECT_EQ(host->allocated_bytes(), 0);
}

TEST_F(DeviceSideMemory, OutOfMemoryLeavesTheArrayWhereItWas) {
  if (!device_memory_is_chosen()) GTEST_SKIP() << "all of a device's memory would have to be filled";
  const std::shared_ptr<Backend> there = make_device_backend(device);
  const auto memory = std::make_shared<SideMemory>(host, there);
  const SideArray array(memory, int64_t{600} << 10, "a codebook");
  {
    const Buffer taken(*there, int64_t{600} << 10, "cache pages");
    EXPECT_THAT(error_of([&] { array.on_device(); }), HasSubstr("a codebook"));
    EXPECT_EQ(memory->device_held_bytes(), 0);
  }
  EXPECT_NE(array.on_device(), nullptr);
  EXPECT_EQ(memory->device_held_bytes(), there->allocated_bytes());
}

}  // namespace
}  // namespace kva
