// Opening the CUDA device. Its code is a module beside the program (lib/kvanalyze/kvanalyze_cuda.so) that is
// loaded when a device is opened: cuBLAS alone takes longer to load than most commands run, and a program
// starts the same where there is no CUDA.
#pragma once

#include <memory>
#include <string>

#include "kernels/device_ops.h"

namespace kva {

// The machine's first CUDA device (CUDA_VISIBLE_DEVICES chooses). nullptr where there is none, where it
// cannot be used, or where this build has no CUDA; *why_not then says why, in one line.
std::shared_ptr<DeviceOps> open_cuda_device(std::string* why_not);

}  // namespace kva
