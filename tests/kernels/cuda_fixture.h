// Tests of CUDA's device; they skip without one.
#pragma once

#include <gtest/gtest.h>

#include <memory>
#include <string>

#include "kernels/device_ops_cuda.h"

namespace kva {

class CudaFixture : public ::testing::Test {
 protected:
  void SetUp() override {
    std::string why_not;
    device = make_cuda_device(&why_not);
    if (!device) GTEST_SKIP() << why_not;
  }

  std::unique_ptr<DeviceOps> device;
};

}  // namespace kva
