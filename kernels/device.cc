#include "kernels/device.h"

#include <dlfcn.h>

#include <array>
#include <cstdio>

namespace kva {
namespace {

// The few driver calls needed, with the signatures of cuda.h (CUresult and CUdevice are ints).
struct Driver {
  int (*init)(unsigned) = nullptr;
  int (*count)(int*) = nullptr;
  int (*name)(char*, int, int) = nullptr;
  int (*memory)(std::size_t*, int) = nullptr;

  bool load() {
    void* library = dlopen("libcuda.so.1", RTLD_NOW | RTLD_LOCAL);
    if (!library) return false;
    init = reinterpret_cast<decltype(init)>(dlsym(library, "cuInit"));
    count = reinterpret_cast<decltype(count)>(dlsym(library, "cuDeviceGetCount"));
    name = reinterpret_cast<decltype(name)>(dlsym(library, "cuDeviceGetName"));
    memory = reinterpret_cast<decltype(memory)>(dlsym(library, "cuDeviceTotalMem_v2"));
    return init && count && name && memory && init(0) == 0;
  }
};

}  // namespace

DeviceStatus cuda_device_status() {
  DeviceStatus status;
  Driver driver;
  status.driver = driver.load();
  int devices = 0;
  if (!status.driver || driver.count(&devices) != 0) return status;
  for (int device = 0; device < devices; ++device) {
    std::array<char, 128> name{};
    std::size_t bytes = 0;
    if (driver.name(name.data(), static_cast<int>(name.size()) - 1, device) != 0) continue;
    if (driver.memory(&bytes, device) != 0) continue;
    std::array<char, 192> line{};
    std::snprintf(line.data(), line.size(), "%s, %.1f GiB", name.data(), static_cast<double>(bytes) / 0x1p30);
    status.devices.emplace_back(line.data());
  }
  return status;
}

}  // namespace kva
