// A cache's page tables as attention's device kernels read them: an entry (DevicePage) for every page.
//
// Entries lie layer by layer, each sequence's at the same places in every layer, so that a plan that names
// entries by their place holds for all layers whose tables are alike. The last pages of a step's tables have
// places of their own at the front. Entries that change one by one, as the last ones do at every step, are
// uploaded together for all layers, and put into their places there.
#pragma once

#include <algorithm>
#include <cstdint>
#include <functional>
#include <map>
#include <optional>
#include <span>
#include <vector>

#include "kernels/device_page.h"
#include "runtime/backend/backend.h"
#include "runtime/backend/counted_vector.h"
#include "runtime/kv/attention_masses.h"
#include "runtime/kv/batch.h"
#include "runtime/kv/byte_ledger.h"
#include "runtime/kv/device_array.h"
#include "runtime/kv/kv_cache.h"
#include "runtime/kv/page_store.h"
#include "runtime/kv/page_table.h"

namespace kva {

// A span of a step and what it reads: one layer's table for each KV head.
struct DeviceSpan {
  BatchSpan span;
  std::span<PageTable> tables;
  // The sequence's masses, and which of its tables is the first here; none where nobody asked.
  AttentionMasses* masses = nullptr;
  std::size_t first_table = 0;
};

// Whether a step is one of decoding: they are many, and what they launch is to stay the same for long.
inline bool decodes(std::span<const DeviceSpan> spans) {
  return std::all_of(spans.begin(), spans.end(), [](const DeviceSpan& of) { return of.span.tokens == 1; });
}

// As device kernels read sides of the codec that build on no other; nullopt: they cannot, or the sides build
// on others. What the codec shares is brought to the device. Throws InputError when the device is out of
// memory. By one thread at a time.
std::optional<SideFormat> readable_format(const SideCodec& codec, int64_t tokens, int64_t width);
// A step's spans in a layer; good until the next call.
using SpansOf = std::function<std::span<DeviceSpan>(int layer)>;

// Neighbouring pages of a table that are read alike.
struct PageShape {
  int64_t pages = 0;
  int32_t tokens = 0;  // of each
  // Of formats that differ in nothing but what they share, the first: a plan for one holds for all.
  uint16_t key_format = 0;
  uint16_t value_format = 0;
  // As DevicePage has them.
  uint16_t key_basis = 0;
  uint16_t value_basis = 0;

  bool alike(const PageShape& other) const {
    return tokens == other.tokens && key_format == other.key_format && value_format == other.value_format &&
           key_basis == other.key_basis && value_basis == other.value_basis;
  }
  friend bool operator==(const PageShape&, const PageShape&) = default;
};

// Everything passed to the constructor outlives it. Used by one thread at a time.
class DeviceTables {
 public:
  // Entries are in `backend`, what is kept to know them by in `host`. Where positions are relative to the
  // cache, entries have DevicePage::index.
  DeviceTables(const PageStore& store, Backend& backend, Backend& host, int layers, int kv_heads,
               PositionMode positions);

  // Uploads what changed of all layers' tables since they were here last; every table has a page. Throws
  // InputError when out of memory; tables can then be brought again.
  void update(const SpansOf& spans);
  // The sequence is gone; its places are used again.
  void forget(SequenceId sequence);

  // After update(), on the device. Places count from pages().
  DevicePage* pages(int layer) const { return entries_.data() + layer * layer_places_; }
  const SideFormat* device_formats() const { return device_formats_.data(); }
  std::span<const SideFormat> formats() const { return formats_; }
  // Of the pages of a table that update() saw, in order.
  std::span<const PageShape> shapes(int layer, SequenceId sequence, int kv_head) const;
  int32_t place(SequenceId sequence, int kv_head, int64_t page) const;
  // Tokens that such a table still holds, where positions are relative to the cache.
  int64_t held_tokens(int layer, SequenceId sequence, int kv_head) const;
  // Of the last page of a table of the span-th of update()'s spans.
  int32_t last_place(std::size_t span, int kv_head) const {
    return static_cast<int32_t>(span) * kv_heads_ + kv_head;
  }
  // Changes with the places.
  int64_t layouts() const { return layouts_; }

  // Adds tables, and what of them is in `host`.
  void add_to(ByteLedger& ledger) const;

 private:
  struct Table {
    explicit Table(const CountingAllocator<PageShape>& allocator)
        : shapes(allocator), bases(CountingAllocator<const std::byte*>(allocator)) {}
    CountedVector<PageShape> shapes;
    CountedVector<const std::byte*> bases;  // that its pages have been on since the last layout
    int64_t pages = 0;
    int64_t copied = 0;  // pages from the front whose entries are in their places; shapes are of one more
    // Where positions are relative to the cache: tokens that are still there, in those pages and in all.
    int64_t copied_tokens = 0;
    int64_t held_tokens = 0;
  };
  struct Sequence {
    CountedVector<Table> tables;  // [layer * kv_heads + KV head], or empty
    int64_t first = 0;            // place of KV head 0's page 0
    int64_t room = 0;             // pages of each KV head
  };

  Table& table(int layer, SequenceId sequence, int kv_head);
  // That positions relative to the cache count.
  int64_t counted_tokens(const PageRef& ref) const;
  Sequence& sequence(SequenceId id);
  bool has_room(int layer, std::span<const DeviceSpan> spans);
  void lay_out();
  void update(int layer, std::span<DeviceSpan> spans);
  void update(int layer, std::size_t span, const DeviceSpan& of, int kv_head);
  void put(DevicePage* to, std::span<const DevicePage> pages);
  void place_staged();
  struct SideEntry {
    const std::byte* payload;
    const std::byte* base;
    uint16_t format;
    uint16_t basis;
  };
  DevicePage entry_of(const PageRef& ref, Table& table);
  SideEntry side_of(SideId side, Table& table);
  uint16_t basis_of(const std::byte* vectors, Table& table) const;
  uint16_t format_of(SideId side);
  uint16_t add_format(const SideFormat& format);

  const PageStore& store_;
  Backend& backend_;
  Backend& host_;
  int layers_;
  int kv_heads_;
  PositionMode positions_;
  int64_t host_bytes_ = 0;
  CountedVector<Sequence> sequences_;
  int64_t last_places_ = 0;   // for the last pages of a step's tables
  int64_t layer_places_ = 0;  // of a layer
  int64_t layouts_ = 0;
  bool sound_ = false;               // entries are what tables say
  DeviceArray<DevicePage> entries_;  // [layers, layer_places_]
  // Formats that pages had since the last layout, what of them is uploaded, and of each the first that is
  // alike.
  std::vector<SideFormat> formats_;
  std::vector<uint16_t> alike_;
  std::map<SideFormat, uint16_t> known_formats_;
  std::size_t uploaded_formats_ = 0;
  bool has_gone_ = false;  // a sequence, since the last layout
  DeviceArray<SideFormat> device_formats_;
  // Of the update under way.
  std::vector<DevicePage> changed_, staged_;
  std::vector<int64_t> staged_places_;
  DeviceArray<DevicePage> staged_here_;
  DeviceArray<int64_t> staged_places_here_;
};

}  // namespace kva
