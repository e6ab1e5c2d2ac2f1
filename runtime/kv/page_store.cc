#include "runtime/kv/page_store.h"

#include <algorithm>
#include <cstring>
#include <utility>

#include "kernels/check.h"

namespace kva {
namespace {

// A slab is an eighth of what its stream holds already, within these bounds: few large allocations for a
// large cache, at most an eighth of slack for any.
constexpr int64_t kMinSlabBytes = 16 << 10;
constexpr int64_t kMaxSlabBytes = 2 << 20;
constexpr int64_t kSlotAlignment = 64;

template <typename T>
std::size_t index_of(T id) {
  return static_cast<std::size_t>(id);
}

}  // namespace

PageStore::PageStore(Backend& backend, int64_t head_dim, int64_t page_tokens)
    : backend_(backend),
      head_dim_(head_dim),
      page_tokens_(page_tokens),
      sides_(CountingAllocator<SideEntry>(backend, table_bytes_)),
      slabs_(CountingAllocator<Slab>(backend, table_bytes_)),
      streams_(CountingAllocator<Stream>(backend, table_bytes_)) {}

PageStore::~PageStore() = default;

const PageStore::SideEntry& PageStore::side(SideId id) const {
  KVA_CHECK(id >= 0 && index_of(id) < sides_.size() && sides_[index_of(id)].payload, "no such page side");
  return sides_[index_of(id)];
}

PageStore::SideEntry& PageStore::side(SideId id) {
  return const_cast<SideEntry&>(std::as_const(*this).side(id));
}

int PageStore::add_stream(std::shared_ptr<const SideCodec> codec) {
  const int64_t payload = std::max<int64_t>(codec->bytes(page_tokens_, head_dim_), 1);
  const int64_t slot = (payload + kSlotAlignment - 1) / kSlotAlignment * kSlotAlignment;
  streams_.push_back({.codec = std::move(codec), .slot_bytes = slot});
  return static_cast<int>(streams_.size()) - 1;
}

void PageStore::link_partial(int32_t slab) {
  Slab& added = slabs_[index_of(slab)];
  int32_t& head = streams_[index_of(added.stream)].partial;
  added.previous_partial = -1;
  added.next_partial = head;
  if (head >= 0) slabs_[index_of(head)].previous_partial = slab;
  head = slab;
}

void PageStore::unlink_partial(int32_t slab) {
  const Slab& gone = slabs_[index_of(slab)];
  if (gone.previous_partial >= 0)
    slabs_[index_of(gone.previous_partial)].next_partial = gone.next_partial;
  else
    streams_[index_of(gone.stream)].partial = gone.next_partial;
  if (gone.next_partial >= 0) slabs_[index_of(gone.next_partial)].previous_partial = gone.previous_partial;
}

int32_t PageStore::slab_with_space(int32_t stream) {
  Stream& of = streams_[index_of(stream)];
  if (of.partial >= 0) return of.partial;
  const int64_t wanted = std::clamp(of.held_bytes / 8, kMinSlabBytes, kMaxSlabBytes);
  const int64_t slots = std::max<int64_t>(1, wanted / of.slot_bytes);
  Slab slab;
  slab.memory = Buffer(backend_, slots * of.slot_bytes, "cache pages");
  slab.stream = stream;
  slab.slots = static_cast<int32_t>(slots);
  int32_t index = free_slab_;
  if (index < 0) {
    index = static_cast<int32_t>(slabs_.size());
    slabs_.emplace_back();
  } else {
    free_slab_ = slabs_[index_of(index)].next_partial;
  }
  of.held_bytes += slab.memory.held_bytes();
  slab_bytes_ += slab.memory.held_bytes();
  slabs_[index_of(index)] = std::move(slab);
  ++live_slabs_;
  link_partial(index);
  return index;
}

std::byte* PageStore::take_slot(int32_t slab) {
  Slab& from = slabs_[index_of(slab)];
  std::byte* slot = from.recycled;
  if (slot)
    std::memcpy(&from.recycled, slot, sizeof(from.recycled));
  else
    slot = from.memory.data() + from.next_fresh++ * streams_[index_of(from.stream)].slot_bytes;
  if (++from.used == from.slots) unlink_partial(slab);
  return slot;
}

void PageStore::return_slot(int32_t slab, std::byte* slot) {
  Slab& to = slabs_[index_of(slab)];
  if (to.used == to.slots) link_partial(slab);
  if (--to.used > 0) {
    std::memcpy(slot, &to.recycled, sizeof(to.recycled));
    to.recycled = slot;
    return;
  }
  unlink_partial(slab);
  streams_[index_of(to.stream)].held_bytes -= to.memory.held_bytes();
  slab_bytes_ -= to.memory.held_bytes();
  to = Slab();
  to.next_partial = std::exchange(free_slab_, slab);
  --live_slabs_;
}

SideId PageStore::allocate(int stream) {
  KVA_CHECK(stream >= 0 && index_of(stream) < streams_.size(), "no such stream");
  if (free_side_ < 0) {
    sides_.push_back({.slab = free_side_});
    free_side_ = static_cast<SideId>(sides_.size()) - 1;
  }
  const int32_t slab = slab_with_space(stream);
  const SideId id = free_side_;
  SideEntry& entry = sides_[index_of(id)];
  free_side_ = entry.slab;
  entry = {.payload = take_slot(slab), .references = 1, .tokens = 0, .stream = stream, .slab = slab};
  ++live_sides_;
  return id;
}

void PageStore::retain(SideId id) { ++side(id).references; }

void PageStore::release(SideId id) {
  SideEntry& entry = side(id);
  if (--entry.references > 0) return;
  payload_bytes_ -= used_bytes(entry);
  return_slot(entry.slab, entry.payload);
  entry = {.slab = std::exchange(free_side_, id)};
  --live_sides_;
}

SideId PageStore::make_unique(SideId id) {
  if (references(id) == 1) return id;
  const SideId copy = allocate(side(id).stream);
  backend_.copy(side(copy).payload, side(id).payload, codec(id).bytes(page_tokens_, head_dim_));
  set_tokens(copy, tokens(id));
  release(id);
  return copy;
}

void PageStore::set_tokens(SideId id, int64_t tokens) {
  KVA_CHECK(tokens >= 0 && tokens <= page_tokens_, "more tokens than the page has room for");
  SideEntry& entry = side(id);
  payload_bytes_ -= used_bytes(entry);
  entry.tokens = static_cast<int32_t>(tokens);
  payload_bytes_ += used_bytes(entry);
}

std::byte* PageStore::writable_payload(SideId id) {
  KVA_CHECK(references(id) == 1, "a shared side is copied before it is written");
  return side(id).payload;
}

int64_t PageStore::used_bytes(const SideEntry& entry) const {
  return stream_of(entry).bytes(entry.tokens, head_dim_);
}

void PageStore::add_to(ByteLedger& ledger) const {
  ledger.payload += payload_bytes_;
  ledger.slack += slab_bytes_ - payload_bytes_;
  ledger.tables += table_bytes_;
}

}  // namespace kva
