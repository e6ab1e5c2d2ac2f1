// The device that tests of the cache on a device run on: the host's lanes in the unit tests, CUDA's where the
// same tests are linked with a GPU's.
#pragma once

#include <cstdint>
#include <memory>

#include "kernels/device_ops.h"

namespace kva {

// A new one with memory for tests; memory_bytes: how much, where it can be chosen. Null: there is none, and
// the test is skipped.
std::shared_ptr<DeviceOps> device_under_test(int64_t memory_bytes = int64_t{1} << 30);
// Whether its memory can be made as small as asked for.
bool device_memory_is_chosen();
// How many bytes the device has brought to the host so far; -1: it does not count them.
int64_t downloaded_bytes(const DeviceOps& device);

}  // namespace kva
