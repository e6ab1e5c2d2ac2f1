#include "kernels/device_ops.h"

namespace kva {

DeviceOps::~DeviceOps() = default;

}  // namespace kva
