// What the CUDA module hands to the program that loads it (kernels/cuda_device.h).
#pragma once

#include <string>

#include "kernels/device_ops.h"

// The machine's first CUDA device, owned by the caller; nullptr where it cannot be used, *why_not then says
// why.
extern "C" kva::DeviceOps* kvanalyze_open_cuda_device(std::string* why_not);
