#include "kernels/cuda_module.h"

#include "kernels/device_ops_cuda.h"

extern "C" [[gnu::visibility("default")]] kva::DeviceOps* kvanalyze_open_cuda_device(std::string* why_not) {
  return kva::make_cuda_device(why_not).release();
}
