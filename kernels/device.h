// What GPU this machine has, asked of the driver itself: needs neither the CUDA toolkit nor a build with
// CUDA.
#pragma once

#include <string>
#include <vector>

namespace kva {

struct DeviceStatus {
  bool driver = false;               // an NVIDIA driver is installed and answers
  std::vector<std::string> devices;  // "NVIDIA H200, 139.7 GiB"
};

DeviceStatus cuda_device_status();

}  // namespace kva
