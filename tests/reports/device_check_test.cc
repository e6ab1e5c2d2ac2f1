#include "reports/device_check.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <stdexcept>
#include <utility>

#include "reports/run_device.h"
#include "tests/error_of.h"
#include "tests/kernels/lane_device.h"

namespace kva {
namespace {

using testing::AllOf;
using testing::ElementsAre;
using testing::HasSubstr;
using testing::IsEmpty;

std::shared_ptr<DeviceOps> spoilt(LaneFaults faults) {
  std::shared_ptr<DeviceOps> device = make_lane_device();
  spoil(*device, std::move(faults));
  return device;
}

// The findings that a device does not pass.
std::vector<std::string> failures(const std::shared_ptr<DeviceOps>& device) {
  std::vector<std::string> findings;
  for (const SelfCheck& check : check_device(device))
    if (!check.passed) findings.push_back(check.finding);
  return findings;
}

// Twice the scores of items that `chosen` picks by their bucket.
template <class Chosen>
LaneFaults doubled_scores(const Chosen& chosen) {
  return {.attention = [=](const AttentionGrid& grid, AttentionJob& job) {
    for (const AttentionBucket& bucket : grid.buckets)
      if (chosen(bucket)) job.scale *= 2.0f;
  }};
}

TEST(DeviceCheck, ADeviceThatComputesPasses) { EXPECT_THAT(failures(make_lane_device()), IsEmpty()); }

TEST(DeviceCheck, WrongProductsAreFound) {
  // What is f16 is read as bf16.
  const auto device = spoilt({.products = [](DeviceProduct& product) {
    if (product.weights.dtype == DType::kF16) product.x.type = product.weights.dtype = DType::kBF16;
  }});
  EXPECT_THAT(failures(device),
              ElementsAre(HasSubstr("f16 weights, 1 rows"), HasSubstr("f16 weights, 33 rows")));
}

TEST(DeviceCheck, WrongAttentionIsFoundOfEachWay) {
  const auto tiles = [](TileKind kind) {
    return doubled_scores([=](const AttentionBucket& bucket) { return bucket.tiles == kind; });
  };
  EXPECT_THAT(failures(spoilt(tiles(TileKind::kF16))), testing::Contains(HasSubstr("dense(f16)")));
  const auto narrow = [](NarrowKind kind, SideKind keys) {
    return doubled_scores(
        [=](const AttentionBucket& bucket) { return bucket.narrow == kind && bucket.keys == keys; });
  };
  EXPECT_THAT(failures(spoilt(narrow(NarrowKind::kBare, SideKind::kBits8ByChannel))),
              ElementsAre(HasSubstr("quant(bits=8)")));
  EXPECT_THAT(failures(spoilt(narrow(NarrowKind::kBare, SideKind::kE4M3))),
              ElementsAre(HasSubstr("dense(fp8)")));
  EXPECT_THAT(failures(spoilt(narrow(NarrowKind::kKept, SideKind::kBits4ByChannel))),
              ElementsAre(HasSubstr("outliers=0.01")));
  EXPECT_THAT(failures(spoilt(narrow(NarrowKind::kKept, SideKind::kBits3ByChannel))),
              ElementsAre(HasSubstr("quant(k=3,v=2)")));
}

TEST(DeviceCheck, WhatADeviceThrowsIsAFinding) {
  const auto device = spoilt({.attention = [](const AttentionGrid&, AttentionJob&) {
    throw std::runtime_error("launching attention: an illegal memory access was encountered");
  }});
  EXPECT_THAT(failures(device),
              testing::Each(AllOf(HasSubstr("attention"), HasSubstr("illegal memory access"))));
}

TEST(DeviceCheck, NoRunReliesOnADeviceThatDoesNotPass) {
  std::vector<std::string> lines;
  const Say say = [&](const std::string& line) { lines.push_back(line); };
  const DeviceOpener open = [](std::string*) {
    return spoilt(doubled_scores([](const AttentionBucket&) { return true; }));
  };
  EXPECT_EQ(open_device({"auto", open}, say).kind(), "cpu");
  EXPECT_THAT(lines,
              ElementsAre(AllOf(HasSubstr("the run is on the CPU: cuda (the host's lanes) does not compute"),
                                HasSubstr("attention, dense(f16): off by"))));
  EXPECT_THAT(error_of([&] {
                open_device({"cuda", open}, say);
              }),
              AllOf(HasSubstr("--device cuda: cuda (the host's lanes) does not compute what the CPU does"),
                    HasSubstr("use --device cpu")));
}

}  // namespace
}  // namespace kva
