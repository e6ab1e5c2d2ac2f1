// A device made of the host: the lane code that CUDA's kernels run, in loops, on memory that only the
// device's own calls reach. What reads or writes it from the host besides faults: pages of an allocation are
// without access rights between calls.
#pragma once

#include <cstdint>
#include <functional>
#include <memory>

#include "kernels/device_ops.h"

namespace kva {

// memory_bytes: what it has.
std::unique_ptr<DeviceOps> make_lane_device(int64_t memory_bytes = int64_t{1} << 30);

// Bytes that it has brought to the host so far. device: one of those.
int64_t lane_downloads(const DeviceOps& device);

// What goes wrong on a device: changes to launches before they run, or exceptions. Null: nothing.
struct LaneFaults {
  std::function<void(DeviceProduct&)> products;
  std::function<void(const AttentionGrid&, AttentionJob&)> attention;
};
void spoil(DeviceOps& device, LaneFaults faults);

}  // namespace kva
