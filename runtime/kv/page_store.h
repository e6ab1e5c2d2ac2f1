// The pages' sides: payloads in slabs of equal slots, each with its codec and its refcount. Positions are not
// here but in the refs (page_table.h), so that a side can be shared at different positions.
#pragma once

#include <cstddef>
#include <cstdint>
#include <memory>
#include <span>
#include <vector>

#include "runtime/backend/backend.h"
#include "runtime/backend/counted_vector.h"
#include "runtime/kv/byte_ledger.h"
#include "runtime/kv/codec.h"

namespace kva {

enum class Side { kKey, kValue };

// Names a live side of one store; reused after the side is freed.
using SideId = int32_t;
inline constexpr SideId kNoSide = -1;

// What a side is for. Sides of one purpose lie together: attention reads many K before the first V.
enum class Lane : int8_t { kKeys, kValues, kShared, kPlaces };

// Allocation and refcounts are for one thread at a time; payloads of different sides may be written and read
// concurrently. The backends outlive the store.
class PageStore {
 public:
  // Pages have room for page_tokens tokens of head_dim values. Payloads are in `backend`, which may be a
  // device's; all else is in `host`, which may be the same back end where that is the host's.
  PageStore(Backend& backend, Backend& host, int64_t head_dim, int64_t page_tokens);
  ~PageStore();
  PageStore(const PageStore&) = delete;
  PageStore& operator=(const PageStore&) = delete;

  // A new side without tokens, with room for page_tokens, and with one reference. The codec is appendable.
  // Throws InputError when out of memory, changing nothing.
  SideId allocate(const std::shared_ptr<const SideCodec>& codec, Lane lane);
  // A new side of `tokens` tokens of `width` numbers that keeps a copy of `payload`, the codec's encoding of
  // them, and a reference to `base` where it builds on one. Throws InputError as allocate().
  SideId add(const std::shared_ptr<const SideCodec>& codec, Lane lane, int64_t tokens, int64_t width,
             std::span<const std::byte> payload, SideId base = kNoSide);
  // The same, without a base, of a side whose payload is to be written by whoever adds it.
  SideId add_uncoded(const std::shared_ptr<const SideCodec>& codec, Lane lane, int64_t tokens, int64_t width);
  // The places of a page with gaps (page_table.h); without codec, counted as tables.
  SideId add_places(std::span<const std::byte> places);

  // Another reference to the side: sharing it costs no payload.
  void retain(SideId id);
  // Drops a reference; the last one frees the slot, and the slab with its last slot, and drops the base.
  void release(SideId id);
  // Copy on write: `id` itself where this is its only reference; else a copy, for which this reference was
  // traded. The codec is appendable.
  SideId make_unique(SideId id);

  int64_t references(SideId id) const { return side(id).references; }
  int64_t tokens(SideId id) const { return side(id).tokens; }
  int64_t width(SideId id) const { return side(id).width; }
  SideId base(SideId id) const { return side(id).base; }
  // How many tokens of an appendable side are written, from the front; the rest counts as slack.
  void set_tokens(SideId id, int64_t tokens);

  const SideCodec& codec(SideId id) const { return *streams_[index(side(id).stream)].codec; }
  std::shared_ptr<const SideCodec> shared_codec(SideId id) const {
    return streams_[index(side(id).stream)].codec;
  }
  // Where the payload, and that of the base, are in the backend's memory.
  SideData data(SideId id) const;
  // What add_places() was given, for the host to read. data() is the same on a device.
  const std::byte* places(SideId id) const;
  // A copy of the payload in the host's memory.
  std::vector<std::byte> downloaded(SideId id) const;
  // Decodes the side: rows [its tokens, its width]. Thread-safe beside itself.
  void read(SideId id, MatView<float> rows) const;
  // Only for an appendable side with one reference; in the backend's memory.
  std::byte* writable_payload(SideId id);
  // Of a side from add_uncoded(), for whoever adds it; others may build on it already.
  std::byte* uncoded_payload(SideId id) { return memory_of(side(id)); }
  // Payload and scales of the side's tokens, without its base.
  int64_t bytes(SideId id) const;

  // What a side with so many bytes of payload and scales takes of slots and entries, the room that slabs and
  // entries keep free left out.
  static int64_t footprint_bytes(int64_t bytes);

  // The most that any codec in use so far wants for kMaxCodecQueries query rows.
  int64_t codec_scratch() const { return codec_scratch_; }
  int64_t widest_coordinates() const { return widest_coordinates_; }

  int64_t live_sides() const { return live_sides_; }
  int64_t live_slabs() const { return live_slabs_; }

  // Adds payload, scales, slack, tables and what of those is beside the payloads.
  void add_to(ByteLedger& ledger) const;

 private:
  struct SideEntry {
    int32_t references = 0;  // 0: a free entry
    uint16_t tokens = 0;
    uint16_t width = 0;
    int32_t stream = 0;
    int32_t slab = -1;  // none: without payload; free entries: the next free id
    int32_t slot = 0;
    SideId base = kNoSide;
  };
  struct Slab {
    Buffer memory;
    int32_t size_class = 0;
    int32_t slots = 0;
    int32_t used = 0;
    int32_t next_fresh = 0;     // slots from here on were never used
    int32_t recycled = -1;      // a list of freed slots through their links
    int32_t next_partial = -1;  // in the class's list of slabs with a free slot; or next free slab index
    int32_t previous_partial = -1;
  };
  // Of a slab on a device, in the host's memory.
  struct HostPart {
    Buffer links;   // the list of freed slots, i32 a slot
    Buffer mirror;  // what places the slots hold
  };
  // Sides of one codec and lane. It goes with its last side.
  struct Stream {
    std::shared_ptr<const SideCodec> codec;  // none: places, or a free entry
    Lane lane = Lane::kKeys;
    int64_t sides = 0;
  };
  // Slabs of one slot size and lane.
  struct SizeClass {
    int64_t slot_bytes = 0;
    Lane lane = Lane::kKeys;
    int64_t held_bytes = 0;
    int32_t partial = -1;  // a list of slabs with a free slot
  };

  template <typename T>
  static std::size_t index(T id) {
    return static_cast<std::size_t>(id);
  }
  const SideEntry& side(SideId id) const;
  SideEntry& side(SideId id);
  int32_t stream_of(const std::shared_ptr<const SideCodec>& codec, Lane lane);
  int32_t class_of(int64_t slot_bytes, Lane lane);
  SideId new_side(const std::shared_ptr<const SideCodec>& codec, Lane lane, int64_t width,
                  int64_t room_bytes);
  int32_t slab_with_space(int32_t size_class);
  Slab new_slab(int32_t size_class) const;
  HostPart new_host_part(const Slab& slab) const;
  int64_t slot_offset(const Slab& slab, int32_t slot) const {
    return slot * classes_[index(slab.size_class)].slot_bytes;
  }
  std::byte* slot_memory(const Slab& slab, int32_t slot) const {
    return slab.memory.data() + slot_offset(slab, slot);
  }
  const HostPart& host_part(const Slab& slab) const { return host_parts_[index(&slab - slabs_.data())]; }
  // Where a freed slot names the next one: in itself, where the host can write there.
  std::byte* link_memory(const Slab& slab, int32_t slot) const {
    return on_device_ ? host_part(slab).links.data() + slot * int64_t{sizeof(int32_t)}
                      : slot_memory(slab, slot);
  }
  std::byte* memory_of(const SideEntry& entry) const {
    return entry.slab < 0 ? nullptr : slot_memory(slabs_[index(entry.slab)], entry.slot);
  }
  std::byte* mirror_of(const SideEntry& entry) const {
    const Slab& slab = slabs_[index(entry.slab)];
    return host_part(slab).mirror.data() + slot_offset(slab, entry.slot);
  }
  int32_t take_slot(int32_t slab);
  void return_slot(int32_t slab, int32_t slot);
  void link_partial(int32_t slab);
  void unlink_partial(int32_t slab);
  void count(const SideEntry& entry, int sign);

  Backend& backend_;
  Backend& host_;
  const bool on_device_;
  int64_t head_dim_;
  int64_t page_tokens_;
  int64_t table_bytes_ = 0;
  CountedVector<SideEntry> sides_;
  CountedVector<Slab> slabs_;
  CountedVector<HostPart> host_parts_;  // of the slabs, on a device; else empty
  CountedVector<Stream> streams_;
  CountedVector<SizeClass> classes_;
  SideId free_side_ = kNoSide;
  int32_t free_slab_ = -1;
  int64_t live_sides_ = 0;
  int64_t live_slabs_ = 0;
  int64_t slab_bytes_ = 0;
  int64_t payload_bytes_ = 0;
  int64_t scale_bytes_ = 0;
  int64_t place_bytes_ = 0;
  int64_t beside_bytes_ = 0;  // links and mirrors
  int64_t widest_coordinates_ = 0;
  int64_t codec_scratch_ = 0;
};

}  // namespace kva
