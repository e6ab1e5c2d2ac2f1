// Whether a device computes what the CPU does. Asked of every device that a run is to rely on.
#pragma once

#include <memory>
#include <vector>

#include "kernels/device_ops.h"
#include "reports/self_check.h"

namespace kva {

// Products with each type of weights against f64, and attention of a prompt and of single steps, over pages
// as they come and pages that are coded on the device, against the CPU's. What the device throws is a
// finding, too. Takes little time and memory.
std::vector<SelfCheck> check_device(const std::shared_ptr<DeviceOps>& device);

}  // namespace kva
