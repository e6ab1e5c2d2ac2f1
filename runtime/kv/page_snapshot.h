// The full pages of a sequence as they were stored at one moment, to be read while the cache goes on.
#pragma once

#include <cstdint>
#include <memory>
#include <vector>

#include "kernels/device_ops.h"
#include "runtime/kv/batch.h"
#include "runtime/kv/page_store.h"
#include "runtime/kv/page_table.h"

namespace kva {

// Made by KvCache::snapshot(), which outlives it. Holds on to the pages: they are freed once it and their
// sequence are gone. Made and destroyed by the thread that uses the cache; read by one thread at a time,
// which may be another.
class PageSnapshot {
 public:
  // Pages [0, pages) of each table, of page_tokens tokens without gaps.
  PageSnapshot(PageStore& store, DeviceOps* device, int64_t head_dim, int64_t page_tokens, int64_t pages,
               const std::vector<std::vector<PageRef>>& tables, int kv_heads);
  ~PageSnapshot();
  PageSnapshot(const PageSnapshot&) = delete;
  PageSnapshot& operator=(const PageSnapshot&) = delete;

  int64_t pages() const { return pages_; }
  // rows: [count, kv_heads, page_tokens, head_dim] of pages [first, first + count) of the layer. Where the
  // pages are on a device, nothing that it was told since waits for that.
  void read(int layer, Side side, int64_t first, int64_t count, float* rows) const;

 private:
  struct Stored {
    const std::byte* payload = nullptr;
    const SideCodec* codec = nullptr;
  };
  const Stored& stored(int layer, int kv_head, Side side, int64_t page) const;

  PageStore& store_;
  DeviceOps* device_;  // null: the host reads the pages
  std::unique_ptr<DeviceMark> mark_;
  int64_t head_dim_;
  int64_t page_tokens_;
  int64_t pages_;
  int kv_heads_;
  std::vector<SideId> held_;
  std::vector<Stored> stored_;  // [layer, KV head, side, page]
};

}  // namespace kva
