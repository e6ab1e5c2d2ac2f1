// CUDA's DeviceOps. Compiled without CUDA; only in builds with it. Programs call open_cuda_device()
// (kernels/cuda_device.h), which loads this only when it is asked for.
#pragma once

#include <memory>
#include <string>

#include "kernels/device_ops.h"

namespace kva {

// The machine's first CUDA device (CUDA_VISIBLE_DEVICES chooses). nullptr where it cannot be used; *why_not
// then says why.
std::unique_ptr<DeviceOps> make_cuda_device(std::string* why_not);

}  // namespace kva
