// The pages' sides: payloads in slabs of equal slots, each with its codec and its refcount. Positions are not
// here but in the refs (page_table.h), so that a side can be shared at different positions.
#pragma once

#include <cstddef>
#include <cstdint>
#include <memory>

#include "runtime/backend/backend.h"
#include "runtime/backend/counted_vector.h"
#include "runtime/kv/byte_ledger.h"
#include "runtime/kv/codec.h"

namespace kva {

// Names a live side of one store; reused after the side is freed.
using SideId = int32_t;
inline constexpr SideId kNoSide = -1;

// Allocation and refcounts are for one thread at a time; payloads of different sides may be written and read
// concurrently. The backend outlives the store.
class PageStore {
 public:
  // Pages have room for page_tokens tokens of head_dim values.
  PageStore(Backend& backend, int64_t head_dim, int64_t page_tokens);
  ~PageStore();
  PageStore(const PageStore&) = delete;
  PageStore& operator=(const PageStore&) = delete;

  // Makes a codec known and gives the index of its stream. Sides of one stream lie together in slabs of their
  // own: K and V are two streams, because attention reads many K before the first V.
  int add_stream(std::shared_ptr<const SideCodec> codec);

  // A new side without tokens and with one reference. Throws InputError when out of memory, changing nothing.
  SideId allocate(int stream);
  // Another reference to the side: sharing it costs no payload.
  void retain(SideId id);
  // Drops a reference; the last one frees the slot, and the slab with its last slot.
  void release(SideId id);
  // Copy on write: `id` itself where this is its only reference; else a copy, for which this reference was
  // traded.
  SideId make_unique(SideId id);

  int64_t references(SideId id) const { return side(id).references; }
  int64_t tokens(SideId id) const { return side(id).tokens; }
  // How many tokens of the page are written, from the front; the rest counts as slack.
  void set_tokens(SideId id, int64_t tokens);

  const SideCodec& codec(SideId id) const { return stream_of(side(id)); }
  const std::byte* payload(SideId id) const { return side(id).payload; }
  // Only for a side with one reference.
  std::byte* writable_payload(SideId id);

  int64_t live_sides() const { return live_sides_; }
  int64_t live_slabs() const { return live_slabs_; }

  // Fills in payload, scales, side and slack, and adds the store's own bookkeeping to tables.
  void add_to(ByteLedger& ledger) const;

 private:
  struct SideEntry {
    std::byte* payload = nullptr;  // null: a free entry
    int32_t references = 0;
    int32_t tokens = 0;
    int32_t stream = 0;
    int32_t slab = 0;  // free entries: the next free id
  };
  struct Slab {
    Buffer memory;
    int32_t stream = 0;
    int32_t slots = 0;
    int32_t used = 0;
    int32_t next_fresh = 0;         // slots from here on were never used
    std::byte* recycled = nullptr;  // a list through the freed slots' first bytes
    int32_t next_partial = -1;      // in the stream's list of slabs with a free slot; or next free slab index
    int32_t previous_partial = -1;
  };
  struct Stream {
    std::shared_ptr<const SideCodec> codec;
    int64_t slot_bytes = 0;
    int64_t held_bytes = 0;  // of its slabs
    int32_t partial = -1;    // a list of slabs with a free slot
  };

  const SideEntry& side(SideId id) const;
  SideEntry& side(SideId id);
  const SideCodec& stream_of(const SideEntry& entry) const {
    return *streams_[static_cast<std::size_t>(entry.stream)].codec;
  }
  int32_t slab_with_space(int32_t stream);
  std::byte* take_slot(int32_t slab);
  void return_slot(int32_t slab, std::byte* slot);
  void link_partial(int32_t slab);
  void unlink_partial(int32_t slab);
  int64_t used_bytes(const SideEntry& entry) const;

  Backend& backend_;
  int64_t head_dim_;
  int64_t page_tokens_;
  int64_t table_bytes_ = 0;
  CountedVector<SideEntry> sides_;
  CountedVector<Slab> slabs_;
  CountedVector<Stream> streams_;
  SideId free_side_ = kNoSide;
  int32_t free_slab_ = -1;
  int64_t live_sides_ = 0;
  int64_t live_slabs_ = 0;
  int64_t slab_bytes_ = 0;
  int64_t payload_bytes_ = 0;
};

}  // namespace kva
