#include "runtime/kv/page_snapshot.h"

#include "kernels/check.h"

namespace kva {

PageSnapshot::PageSnapshot(PageStore& store, DeviceOps* device, int64_t head_dim, int64_t page_tokens,
                           int64_t pages, const std::vector<std::vector<PageRef>>& tables, int kv_heads)
    : store_(store),
      device_(device),
      mark_(device ? device->mark() : nullptr),
      head_dim_(head_dim),
      page_tokens_(page_tokens),
      pages_(pages),
      kv_heads_(kv_heads) {
  for (const std::vector<PageRef>& table : tables)
    for (const Side side : {Side::kKey, Side::kValue})
      for (const PageRef& ref : table) {
        const SideId id = side == Side::kKey ? ref.k : ref.v;
        KVA_CHECK(ref.tokens == page_tokens && store.base(id) == kNoSide, "full pages that build on nothing");
        store.retain(id);
        held_.push_back(id);
        stored_.push_back({store.data(id).payload, &store.codec(id)});
      }
}

PageSnapshot::~PageSnapshot() {
  for (const SideId id : held_) store_.release(id);
}

const PageSnapshot::Stored& PageSnapshot::stored(int layer, int kv_head, Side side, int64_t page) const {
  const int64_t table = int64_t{layer} * kv_heads_ + kv_head;
  return stored_[static_cast<std::size_t>((table * 2 + (side == Side::kKey ? 0 : 1)) * pages_ + page)];
}

void PageSnapshot::read(int layer, Side side, int64_t first, int64_t count, float* rows) const {
  KVA_CHECK(first >= 0 && count >= 0 && first + count <= pages_, "pages of the snapshot");
  std::vector<std::byte> fetched;
  std::vector<DevicePiece> pieces;
  const auto each = [&](const auto& take) {
    int64_t at = 0;  // in what is fetched
    for (int64_t i = 0; i < count * kv_heads_; ++i) {
      const Stored& from = stored(layer, static_cast<int>(i % kv_heads_), side, first + i / kv_heads_);
      take(i, from, at);
      at += from.codec->bytes(page_tokens_, head_dim_);
    }
    return at;
  };
  if (device_) {
    fetched.resize(static_cast<std::size_t>(each([](int64_t, const Stored&, int64_t) {})));
    each([&](int64_t, const Stored& from, int64_t at) {
      pieces.push_back({fetched.data() + at, from.payload, from.codec->bytes(page_tokens_, head_dim_)});
    });
    device_->fetch(pieces, *mark_);
  }
  std::vector<float> scratch;
  each([&](int64_t i, const Stored& from, int64_t at) {
    scratch.resize(static_cast<std::size_t>(from.codec->decode_scratch(page_tokens_, head_dim_)));
    from.codec->decode({.payload = device_ ? fetched.data() + at : from.payload}, scratch.data(),
                       {rows + i * page_tokens_ * head_dim_, page_tokens_, head_dim_});
  });
}

}  // namespace kva
