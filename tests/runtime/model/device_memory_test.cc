// What a decoder takes of a device's memory; on one that is too small for it: one clear line.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "tests/error_of.h"
#include "tests/kernels/lane_device.h"
#include "tests/runtime/model/decoding.h"

namespace kva {
namespace {

using ::testing::AllOf;
using ::testing::HasSubstr;

const std::string kModel = KVA_FIXTURES "/models/llama";

TEST(DeviceMemory, WeightsThatDoNotFit) {
  ThreadPool pool(1);
  const std::shared_ptr<DeviceOps> device = make_lane_device(1 << 16);
  EXPECT_THAT(error_of([&] { Decoder::load(kModel, {.device = device}, pool); }),
              AllOf(HasSubstr("out of memory"), HasSubstr("weights")));
  EXPECT_EQ(device->memory().free_bytes, device->memory().total_bytes);
}

TEST(DeviceMemory, ActivationsThatDoNotFit) {
  ThreadPool pool(1);
  const std::shared_ptr<DeviceOps> device = make_lane_device();
  Decoder decoder = Decoder::load(kModel, {.device = device}, pool);
  KvCache cache(decoder.cache_options(16, DType::kF16, KeyBasis::kRotated), pool);
  const SequenceId sequence = cache.add_sequence();
  std::vector<float> logits(static_cast<std::size_t>(decoder.config().vocab));
  const auto step = [&](std::vector<int32_t> tokens, int64_t start) {
    const auto count = static_cast<int64_t>(tokens.size());
    const int64_t last = count - 1;
    decoder.step(Batch{{{sequence, 0, count, start}}}, tokens, cache, {&last, 1},
                 MatView<float>(logits.data(), 1, decoder.config().vocab));
  };
  step({1, 2}, 0);
  const int64_t held = decoder.workspace_bytes();
  EXPECT_GT(held, 0);
  void* rest = device->allocate(device->memory().free_bytes / 4096 * 4096);
  EXPECT_THAT(error_of([&] { step(std::vector<int32_t>(40, 1), 2); }),
              AllOf(HasSubstr("out of memory"), HasSubstr("activations")));
  device->free(rest);
}

TEST(DeviceMemory, EverythingIsGivenBack) {
  ThreadPool pool(1);
  const std::shared_ptr<DeviceOps> device = make_lane_device();
  const int64_t free = device->memory().free_bytes;
  {
    Decoder decoder = Decoder::load(kModel, {.device = device}, pool);
    EXPECT_LT(device->memory().free_bytes, free - decoder.weight_bytes());
  }
  EXPECT_EQ(device->memory().free_bytes, free);
}

// On the device they stay a byte each, and a scale for 64.
TEST(DeviceMemory, EightBitWeightsStayNarrow) {
  ThreadPool pool(1);
  const std::shared_ptr<DeviceOps> wide = make_lane_device(), narrow = make_lane_device();
  const Decoder f32 = Decoder::load(kModel, {.weights = weight_form("f32"), .device = wide}, pool);
  const Decoder int8 = Decoder::load(kModel, {.weights = weight_form("int8"), .device = narrow}, pool);
  EXPECT_EQ(int8.weight_form(), "int8");
  const auto held = [](const DeviceOps& device) {
    return device.memory().total_bytes - device.memory().free_bytes;
  };
  EXPECT_LT(held(*narrow), held(*wide) / 2);
}

}  // namespace
}  // namespace kva
