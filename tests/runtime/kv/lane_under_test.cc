#include "tests/kernels/lane_device.h"
#include "tests/runtime/kv/device_under_test.h"

namespace kva {

std::shared_ptr<DeviceOps> device_under_test(int64_t memory_bytes) { return make_lane_device(memory_bytes); }
bool device_memory_is_chosen() { return true; }
int64_t downloaded_bytes(const DeviceOps& device) { return lane_downloads(device); }

}  // namespace kva
