#include "kernels/cuda_device.h"

#include <dlfcn.h>

#include <filesystem>

#include "kernels/cuda_module.h"
#include "kernels/device.h"

namespace kva {
namespace {

#ifdef KVA_CUDA_MODULE
// First where a build and an installation have it, seen from the program; then where the loader looks, which
// the package configuration tells the loader of other programs.
void* load_module(std::string* why_not) {
  std::error_code error;
  const auto program = std::filesystem::read_symlink("/proc/self/exe", error);
  const auto beside = program.parent_path() / ".." / KVA_CUDA_MODULE_FOLDER / KVA_CUDA_MODULE;
  const bool is_beside = !error && std::filesystem::exists(beside, error);
  void* module = dlopen(is_beside ? beside.c_str() : KVA_CUDA_MODULE, RTLD_NOW | RTLD_LOCAL);
  if (!module) *why_not = std::string("the CUDA back end does not load: ") + dlerror();
  return module;
}

// The module stays loaded: the device's code is in it.
std::shared_ptr<DeviceOps> open_first(std::string* why_not) {
  void* module = load_module(why_not);
  if (!module) return nullptr;
  const auto open =
      reinterpret_cast<decltype(&kvanalyze_open_cuda_device)>(dlsym(module, "kvanalyze_open_cuda_device"));
  if (open) return std::shared_ptr<DeviceOps>(open(why_not));
  *why_not = std::string("the CUDA back end does not load: ") + dlerror();
  return nullptr;
}
#endif

}  // namespace

std::shared_ptr<DeviceOps> open_cuda_device(std::string* why_not) {
#ifdef KVA_CUDA_MODULE
  const DeviceStatus status = cuda_device_status();
  if (!status.driver) {
    *why_not = "no NVIDIA driver here";
    return nullptr;
  }
  if (status.devices.empty()) {
    *why_not = "the NVIDIA driver finds no device";
    return nullptr;
  }
  return open_first(why_not);
#else
  *why_not = "this build has no CUDA back end; build with nvcc";
  return nullptr;
#endif
}

}  // namespace kva
