#include "runtime/kv/page_store.h"

#include <algorithm>
#include <cstring>
#include <utility>
#include <vector>

#include "kernels/check.h"

namespace kva {
namespace {

// A slab is a part of what its size class holds already, within these bounds: few large allocations for a
// large cache, at most that part of slack for any.
constexpr int64_t kSlabPart = 128;
constexpr int64_t kMinSlabBytes = 16 << 10;
constexpr int64_t kMaxSlabBytes = 2 << 20;
constexpr int64_t kSlotAlignment = 16;

int64_t slot_of(int64_t bytes) { return (bytes + kSlotAlignment - 1) / kSlotAlignment * kSlotAlignment; }

}  // namespace

PageStore::PageStore(Backend& backend, Backend& host, int64_t head_dim, int64_t page_tokens)
    : backend_(backend),
      host_(host),
      on_device_(backend.device() != nullptr),
      head_dim_(head_dim),
      page_tokens_(page_tokens),
      sides_(CountingAllocator<SideEntry>(host, table_bytes_)),
      slabs_(CountingAllocator<Slab>(host, table_bytes_)),
      host_parts_(CountingAllocator<HostPart>(host, table_bytes_)),
      streams_(CountingAllocator<Stream>(host, table_bytes_)),
      classes_(CountingAllocator<SizeClass>(host, table_bytes_)) {}

PageStore::~PageStore() = default;

const PageStore::SideEntry& PageStore::side(SideId id) const {
  KVA_CHECK(id >= 0 && index(id) < sides_.size() && sides_[index(id)].references > 0, "no such page side");
  return sides_[index(id)];
}

PageStore::SideEntry& PageStore::side(SideId id) {
  return const_cast<SideEntry&>(std::as_const(*this).side(id));
}

int32_t PageStore::stream_of(const std::shared_ptr<const SideCodec>& codec, Lane lane) {
  int32_t unused = -1;
  for (std::size_t i = 0; i < streams_.size(); ++i) {
    if (streams_[i].sides == 0)
      unused = static_cast<int32_t>(i);
    else if (streams_[i].codec == codec && streams_[i].lane == lane)
      return static_cast<int32_t>(i);
  }
  if (unused < 0) {
    unused = static_cast<int32_t>(streams_.size());
    streams_.emplace_back();
  }
  return unused;
}

int32_t PageStore::class_of(int64_t slot_bytes, Lane lane) {
  for (std::size_t i = 0; i < classes_.size(); ++i)
    if (classes_[i].slot_bytes == slot_bytes && classes_[i].lane == lane) return static_cast<int32_t>(i);
  classes_.push_back({.slot_bytes = slot_bytes, .lane = lane});
  return static_cast<int32_t>(classes_.size()) - 1;
}

void PageStore::link_partial(int32_t slab) {
  Slab& added = slabs_[index(slab)];
  int32_t& head = classes_[index(added.size_class)].partial;
  added.previous_partial = -1;
  added.next_partial = head;
  if (head >= 0) slabs_[index(head)].previous_partial = slab;
  head = slab;
}

void PageStore::unlink_partial(int32_t slab) {
  const Slab& gone = slabs_[index(slab)];
  if (gone.previous_partial >= 0)
    slabs_[index(gone.previous_partial)].next_partial = gone.next_partial;
  else
    classes_[index(gone.size_class)].partial = gone.next_partial;
  if (gone.next_partial >= 0) slabs_[index(gone.next_partial)].previous_partial = gone.previous_partial;
}

PageStore::Slab PageStore::new_slab(int32_t size_class) const {
  const SizeClass& of = classes_[index(size_class)];
  const int64_t wanted = std::clamp(of.held_bytes / kSlabPart, kMinSlabBytes, kMaxSlabBytes);
  const int64_t slots = std::max<int64_t>(1, wanted / of.slot_bytes);
  Slab slab;
  slab.memory = Buffer(backend_, slots * of.slot_bytes, "cache pages", MemoryUse::kPages);
  slab.size_class = size_class;
  slab.slots = static_cast<int32_t>(slots);
  return slab;
}

PageStore::HostPart PageStore::new_host_part(const Slab& slab) const {
  const SizeClass& of = classes_[index(slab.size_class)];
  HostPart part;
  part.links = Buffer(host_, slab.slots * int64_t{sizeof(int32_t)}, "page tables");
  if (of.lane == Lane::kPlaces) part.mirror = Buffer(host_, slab.slots * of.slot_bytes, "page tables");
  return part;
}

int32_t PageStore::slab_with_space(int32_t size_class) {
  if (const int32_t partial = classes_[index(size_class)].partial; partial >= 0) return partial;
  Slab slab = new_slab(size_class);
  HostPart host_part = on_device_ ? new_host_part(slab) : HostPart();
  int32_t at = free_slab_;
  if (at < 0) {
    at = static_cast<int32_t>(slabs_.size());
    reserve_one_more(slabs_);
    if (on_device_) {
      reserve_one_more(host_parts_);
      host_parts_.emplace_back();
    }
    slabs_.emplace_back();
  } else {
    free_slab_ = slabs_[index(at)].next_partial;
  }
  classes_[index(size_class)].held_bytes += slab.memory.held_bytes();
  slab_bytes_ += slab.memory.held_bytes();
  slabs_[index(at)] = std::move(slab);
  if (on_device_) {
    beside_bytes_ += host_part.links.held_bytes() + host_part.mirror.held_bytes();
    host_parts_[index(at)] = std::move(host_part);
  }
  ++live_slabs_;
  link_partial(at);
  return at;
}

int32_t PageStore::take_slot(int32_t slab) {
  Slab& from = slabs_[index(slab)];
  int32_t slot = from.recycled;
  if (slot >= 0)
    std::memcpy(&from.recycled, link_memory(from, slot), sizeof(from.recycled));
  else
    slot = from.next_fresh++;
  if (++from.used == from.slots) unlink_partial(slab);
  return slot;
}

void PageStore::return_slot(int32_t slab, int32_t slot) {
  Slab& to = slabs_[index(slab)];
  if (to.used == to.slots) link_partial(slab);
  if (--to.used > 0) {
    std::memcpy(link_memory(to, slot), &to.recycled, sizeof(to.recycled));
    to.recycled = slot;
    return;
  }
  unlink_partial(slab);
  classes_[index(to.size_class)].held_bytes -= to.memory.held_bytes();
  slab_bytes_ -= to.memory.held_bytes();
  if (on_device_) {
    HostPart& part = host_parts_[index(slab)];
    beside_bytes_ -= part.links.held_bytes() + part.mirror.held_bytes();
    part = HostPart();
  }
  to = Slab();
  to.next_partial = std::exchange(free_slab_, slab);
  --live_slabs_;
}

SideId PageStore::new_side(const std::shared_ptr<const SideCodec>& codec, Lane lane, int64_t width,
                           int64_t room_bytes) {
  KVA_CHECK(width >= 0 && width <= UINT16_MAX, "rows are at most 65,535 numbers wide");
  if (free_side_ < 0) {
    reserve_one_more(sides_);
    sides_.push_back({.slab = free_side_});
    free_side_ = static_cast<SideId>(sides_.size()) - 1;
  }
  const int32_t stream = stream_of(codec, lane);
  int32_t slab = -1;
  if (room_bytes > 0) slab = slab_with_space(class_of(slot_of(room_bytes), lane));
  Stream& of = streams_[index(stream)];
  of.codec = codec;
  of.lane = lane;
  ++of.sides;
  const SideId id = free_side_;
  SideEntry& entry = sides_[index(id)];
  free_side_ = entry.slab;
  entry = {.references = 1,
           .tokens = 0,
           .width = static_cast<uint16_t>(width),
           .stream = stream,
           .slab = slab,
           .slot = slab >= 0 ? take_slot(slab) : 0,
           .base = kNoSide};
  ++live_sides_;
  if (codec) {
    codec_scratch_ = std::max(codec_scratch_, codec->scratch_values(kMaxCodecQueries, page_tokens_, width));
    if (codec->has_coordinates())
      widest_coordinates_ = std::max(widest_coordinates_, codec->coordinates(width));
  }
  return id;
}

SideId PageStore::allocate(const std::shared_ptr<const SideCodec>& codec, Lane lane) {
  KVA_CHECK(codec->appendable(), "only appendable sides are allocated empty");
  return new_side(codec, lane, head_dim_, codec->bytes(page_tokens_, head_dim_));
}

SideId PageStore::add(const std::shared_ptr<const SideCodec>& codec, Lane lane, int64_t tokens, int64_t width,
                      std::span<const std::byte> payload, SideId base) {
  KVA_CHECK(codec->bytes(tokens, width) == static_cast<int64_t>(payload.size()), "a payload of another size");
  const SideId id = add_uncoded(codec, lane, tokens, width, base);
  backend_.upload(memory_of(side(id)), payload.data(), static_cast<int64_t>(payload.size()));
  return id;
}

SideId PageStore::add_uncoded(const std::shared_ptr<const SideCodec>& codec, Lane lane, int64_t tokens,
                              int64_t width, SideId base) {
  const SideId id = new_side(codec, lane, width, codec->bytes(tokens, width));
  side(id).tokens = static_cast<uint16_t>(tokens);
  count(side(id), +1);
  if (base != kNoSide) {
    retain(base);
    codec_scratch_ = std::max(
        codec_scratch_, codec->scratch_values(kMaxCodecQueries, tokens, width) +
                            this->codec(base).scratch_values(kMaxCodecQueries, tokens, side(base).width));
  }
  side(id).base = base;
  return id;
}

SideId PageStore::add_places(std::span<const std::byte> places) {
  const auto bytes = static_cast<int64_t>(places.size());
  KVA_CHECK(bytes <= UINT16_MAX, "places of one page");
  const SideId id = new_side(nullptr, Lane::kPlaces, bytes, bytes);
  backend_.upload(memory_of(side(id)), places.data(), bytes);
  if (on_device_ && bytes > 0) std::memcpy(mirror_of(side(id)), places.data(), places.size());
  count(side(id), +1);
  return id;
}

void PageStore::retain(SideId id) { ++side(id).references; }

void PageStore::release(SideId id) {
  SideEntry& entry = side(id);
  if (--entry.references > 0) return;
  count(entry, -1);
  if (entry.slab >= 0) return_slot(entry.slab, entry.slot);
  Stream& stream = streams_[index(entry.stream)];
  if (--stream.sides == 0) stream.codec.reset();
  const SideId base = entry.base;
  entry = {.slab = std::exchange(free_side_, id)};
  --live_sides_;
  if (base != kNoSide) release(base);
}

SideId PageStore::make_unique(SideId id) {
  if (references(id) == 1) return id;
  const SideId copy = allocate(shared_codec(id), streams_[index(side(id).stream)].lane);
  backend_.copy(memory_of(side(copy)), memory_of(side(id)), codec(id).bytes(page_tokens_, head_dim_));
  set_tokens(copy, tokens(id));
  release(id);
  return copy;
}

void PageStore::set_tokens(SideId id, int64_t tokens) {
  KVA_CHECK(tokens >= 0 && tokens <= page_tokens_, "more tokens than the page has room for");
  SideEntry& entry = side(id);
  count(entry, -1);
  entry.tokens = static_cast<uint16_t>(tokens);
  count(entry, +1);
}

SideData PageStore::data(SideId id) const {
  const SideEntry& entry = side(id);
  SideData result{.payload = memory_of(entry)};
  if (entry.base != kNoSide) {
    result.base = memory_of(side(entry.base));
    result.base_codec = &codec(entry.base);
  }
  return result;
}

const std::byte* PageStore::places(SideId id) const {
  return on_device_ ? mirror_of(side(id)) : memory_of(side(id));
}

std::vector<std::byte> PageStore::downloaded(SideId id) const {
  std::vector<std::byte> payload(static_cast<std::size_t>(bytes(id)));
  backend_.download(payload.data(), memory_of(side(id)), bytes(id));
  return payload;
}

void PageStore::read(SideId id, MatView<float> rows) const {
  KVA_CHECK(rows.rows == tokens(id) && rows.cols == width(id), "rows for the side's tokens");
  int64_t values = codec(id).decode_scratch(rows.rows, rows.cols);
  const SideId below = base(id);
  if (below != kNoSide) values += codec(below).decode_scratch(rows.rows, width(below));
  std::vector<float> scratch(static_cast<std::size_t>(values));
  SideData from = data(id);
  std::vector<std::byte> own, base_payload;
  if (on_device_) {
    own = downloaded(id);
    from.payload = own.data();
    if (below != kNoSide) {
      base_payload = downloaded(below);
      from.base = base_payload.data();
    }
  }
  codec(id).decode(from, scratch.data(), rows);
}

std::byte* PageStore::writable_payload(SideId id) {
  KVA_CHECK(references(id) == 1, "a shared side is copied before it is written");
  return memory_of(side(id));
}

int64_t PageStore::footprint_bytes(int64_t bytes) {
  return slot_of(bytes) + static_cast<int64_t>(sizeof(SideEntry));
}

int64_t PageStore::bytes(SideId id) const {
  const SideEntry& entry = side(id);
  return streams_[index(entry.stream)].codec->bytes(entry.tokens, entry.width);
}

void PageStore::count(const SideEntry& entry, int sign) {
  const SideCodec* codec = streams_[index(entry.stream)].codec.get();
  if (!codec) {
    place_bytes_ += int64_t{sign} * entry.width;
    return;
  }
  const int64_t scales = codec->scale_bytes(entry.tokens, entry.width);
  scale_bytes_ += sign * scales;
  payload_bytes_ += sign * (codec->bytes(entry.tokens, entry.width) - scales);
}

void PageStore::add_to(ByteLedger& ledger) const {
  ledger.payload += payload_bytes_;
  ledger.scales += scale_bytes_;
  ledger.slack += slab_bytes_ - payload_bytes_ - scale_bytes_ - place_bytes_;
  ledger.tables += table_bytes_ + place_bytes_ + beside_bytes_;
  if (on_device_) ledger.beside += table_bytes_ + beside_bytes_;
}

}  // namespace kva
