// A device made of the host: the lane code that CUDA's kernels run, in loops, on memory that only the
// device's own calls reach. What reads or writes it from the host besides faults: pages of an allocation are
// without access rights between calls.
#pragma once

#include <cstdint>
#include <memory>

#include "kernels/device_ops.h"

namespace kva {

// memory_bytes: what it has.
std::unique_ptr<DeviceOps> make_lane_device(int64_t memory_bytes = int64_t{1} << 30);

// Bytes that this device, one of the above, has brought to the host so far.
int64_t lane_device_downloads(const DeviceOps& device);

}  // namespace kva
