#include <limits>

#include "analyzer/redundancy/duplicates.h"
#include "kernels/check.h"
#include "kernels/device_ops.h"
#include "runtime/kv/device_array.h"

namespace kva {

int64_t count_duplicates_on_device(const PageTokens& pages, int64_t groups, Backend& backend) {
  const int64_t count = groups * pages.heads;
  KVA_CHECK(backend.device() != nullptr && count <= kMostDevicePages, "pages that a device can count");
  DeviceArray<std::byte> stored(backend, "pages as they are stored");
  DeviceArray<int64_t> order(backend, "an order of tokens");
  DeviceArray<uint64_t> hashes(backend, "hashes of pages");
  DeviceArray<int32_t> indices(backend, "pages by hash");
  stored.upload({pages.stored, static_cast<std::size_t>(count * pages.tokens * pages.token_bytes)});
  if (pages.order) order.upload({pages.order, static_cast<std::size_t>(groups * pages.tokens)});
  hashes.reserve(2 * count + 1);
  indices.reserve(2 * count);
  DuplicateJob job;
  job.pages = pages;
  job.pages.stored = stored.data();
  job.pages.order = pages.order ? order.data() : nullptr;
  job.count = static_cast<int32_t>(count);
  job.hashes = hashes.data();
  job.sorted_hashes = hashes.data() + count;
  job.duplicates = hashes.data() + 2 * count;
  job.indices = indices.data();
  job.sorted = indices.data() + count;
  backend.device()->count_duplicates(job);
  uint64_t duplicates = 0;
  backend.download(&duplicates, job.duplicates, sizeof duplicates);
  return static_cast<int64_t>(duplicates);
}

}  // namespace kva
