// A cache's pages: what they are, what plans make of them, and what they hold.
#include <fmt/format.h>

#include <algorithm>
#include <string>

#include "kernels/directions.h"
#include "runtime/error.h"
#include "runtime/kv/kv_cache_impl.h"
#include "runtime/kv/page_snapshot.h"
#include "runtime/kv/plan.h"

namespace kva {

namespace {

// The first tokens' position of the page that gets the plan's side `index`, and whose it is: "layer 3, KV
// head 1, K of the page at position 64".
std::string place_of(const Plan& plan, int index, const TableLookup& tables) {
  const auto place = [](int layer, int kv_head, Side side, int64_t position) {
    return fmt::format("{} of the page at position {}", side_name(layer, kv_head, side), position);
  };
  for (const PlanEdit& edit : plan.edits)
    if (edit.new_side == index) {
      const PageTable& table = tables(edit.at.sequence, edit.at.layer, edit.at.kv_head);
      return place(edit.at.layer, edit.at.kv_head, edit.at.side,
                   table.pages[static_cast<std::size_t>(edit.at.page)].start);
    }
  for (const PlanRewrite& rewrite : plan.rewrites)
    if (rewrite.k == index || rewrite.v == index)
      return place(rewrite.layer, rewrite.kv_head, rewrite.k == index ? Side::kKey : Side::kValue,
                   rewrite.positions.front());
  // One that others build on.
  for (std::size_t i = 0; i < plan.sides.size(); ++i)
    if (plan.sides[i].base == index) return place_of(plan, static_cast<int>(i), tables);
  return "a new page";
}

std::vector<float> rows_of(const PageStore& store, std::span<const SideTokens> tokens) {
  std::vector<float> rows, page;
  for (const SideTokens& of : tokens) {
    const int64_t width = store.width(of.side);
    page.resize(static_cast<std::size_t>(store.tokens(of.side) * width));
    store.read(of.side, {page.data(), store.tokens(of.side), width});
    rows.insert(rows.end(), page.begin() + of.first * width, page.begin() + (of.first + of.count) * width);
  }
  return rows;
}

// Rows [cells, tokens, width], brought to [tokens, cells, width], as what they are on.
std::vector<float> projected_rows(const std::vector<float>& rows, const NewSide& side) {
  const int64_t cells = side.projection->cells(), width = side.projection->width();
  std::vector<float> joined(rows.size());
  for (int64_t cell = 0; cell < cells; ++cell)
    for (int64_t t = 0; t < side.tokens; ++t)
      std::copy_n(rows.data() + (cell * side.tokens + t) * width, width,
                  joined.data() + (t * cells + cell) * width);
  std::vector<float> coefficients(static_cast<std::size_t>(side.tokens * side.width));
  side.projection->project({joined.data(), side.tokens, cells * width},
                           {coefficients.data(), side.tokens, side.width});
  return coefficients;
}

// What a side with sources is made of.
std::vector<float> rows_to_code(const PageStore& store, const NewSide& side) {
  std::vector<float> rows = rows_of(store, side.sources);
  if (side.projection) return projected_rows(rows, side);
  if (side.others.empty()) return rows;
  const std::vector<float> others = rows_of(store, side.others);
  std::vector<float> between(rows.size());
  directions_between({rows.data(), side.tokens, side.width}, {others.data(), side.tokens, side.width},
                     side.share, {between.data(), side.tokens, side.width});
  return between;
}

}  // namespace

// The codec says which number it is, and why.
void KvCache::Impl::refuse_numbers(const Plan& plan, std::span<const SideId> sides) {
  for (std::size_t i = 0; i < plan.sides.size(); ++i) {
    const NewSide& side = plan.sides[i];
    if (side.sources.empty()) continue;
    std::vector<std::byte> payload(static_cast<std::size_t>(side.bytes())), under;
    SideData base;
    if (side.base >= 0) {
      const auto below = static_cast<std::size_t>(side.base);
      under = store.downloaded(sides[below]);
      base = {.base = under.data(), .base_codec = plan.sides[below].codec.get()};
    }
    try {
      const std::vector<float> rows = rows_to_code(store, side);
      side.codec->encode({rows.data(), side.tokens, side.width}, base, payload.data());
    } catch (const InputError& error) {
      throw InputError(fmt::format("{}: {}", place_of(plan, static_cast<int>(i), tables()), error.what()));
    }
  }
  // Coefficients are rounded otherwise here than there.
  for (std::size_t i = 0; i < plan.sides.size(); ++i)
    if (const NewSide& side = plan.sides[i];
        !side.sources.empty() && (side.projection || side.codec->projection()))
      throw InputError(fmt::format("{}: expected coefficients within f16, found one at its very end",
                                   place_of(plan, static_cast<int>(i), tables())));
  KVA_CHECK(false, "device and codec refuse the same numbers");
}

int64_t KvCache::sealed_pages(SequenceId sequence) const {
  return tokens(sequence) / impl_->options.page_tokens;
}

int64_t KvCache::pages(SequenceId sequence, int layer, int kv_head) const {
  return static_cast<int64_t>(impl_->table(sequence, layer, kv_head).pages.size());
}

PageFacts KvCache::page(const PageAddress& at) const {
  const Impl& impl = *impl_;
  const PageRef& ref = impl_->ref(at.sequence, at.layer, at.kv_head, at.page);
  const PageTable& table = impl_->table(at.sequence, at.layer, at.kv_head);
  const SideId id = at.side == Side::kKey ? ref.k : ref.v;
  PageFacts facts{.side = id,
                  .tokens = ref.tokens,
                  .start = ref.start,
                  .open = table.open && &ref == &table.pages.back(),
                  .contiguous = ref.where == kNoSide,
                  .references = impl.store.references(id),
                  .codec = impl.store.codec(id).name()};
  if (!facts.contiguous) {
    const PagePlaces places(impl.store, ref);
    for (int64_t t = 0; t < places.tokens(); ++t) {
      facts.positions.push_back(places.position(t));
      facts.biases.push_back(places.bias(t));
    }
  }
  return facts;
}

StoredSide KvCache::side(SideId id) const {
  const PageStore& store = impl_->store;
  return {.codec = store.shared_codec(id),
          .tokens = store.tokens(id),
          .width = store.width(id),
          .payload = {store.data(id).payload, static_cast<std::size_t>(store.bytes(id))},
          .base = store.base(id)};
}

void KvCache::read_page(SequenceId sequence, int layer, int kv_head, int64_t page, Side side,
                        MatView<float> rows) const {
  const PageRef& ref = impl_->ref(sequence, layer, kv_head, page);
  KVA_CHECK(rows.rows == ref.tokens && rows.cols == impl_->options.head_dim, "rows for the page's tokens");
  impl_->store.read(side == Side::kKey ? ref.k : ref.v, rows);
}

std::unique_ptr<PageSnapshot> KvCache::snapshot(SequenceId sequence) const {
  const KvCacheOptions& options = impl_->options;
  const int64_t pages = sealed_pages(sequence);
  std::vector<std::vector<PageRef>> tables;
  for (const PageTable& table : impl_->sequence(sequence).tables)
    tables.emplace_back(table.pages.begin(), table.pages.begin() + pages);
  return std::make_unique<PageSnapshot>(impl_->store, options.backend->device(), options.head_dim,
                                        options.page_tokens, pages, tables, options.kv_heads);
}

bool KvCache::holds(SideId side, const SideCodec& codec, std::span<const std::byte> payload) const {
  const PageStore& store = impl_->store;
  if (&store.codec(side) != &codec || store.base(side) != kNoSide ||
      store.bytes(side) != static_cast<int64_t>(payload.size()))
    return false;
  if (!impl_->device) return std::equal(payload.begin(), payload.end(), store.data(side).payload);
  const std::vector<std::byte> stored = store.downloaded(side);
  return std::equal(payload.begin(), payload.end(), stored.begin());
}

bool KvCache::codes_itself(const SideCodec& codec, std::span<const SideTokens> sources,
                           const RowProjection* projection) const {
  return impl_->device && DeviceEncoder::codes(codec, sources, projection, impl_->store);
}

std::shared_ptr<SideMemory> KvCache::side_memory() const { return impl_->side_memory; }

void KvCache::apply(const Plan& plan) {
  for (const PlanRewrite& rewrite : plan.rewrites)
    KVA_CHECK(static_cast<int64_t>(rewrite.positions.size()) <= impl_->options.page_tokens,
              "a page holds page_tokens tokens at most");
  if (impl_->device) {
    check_device_plan(plan, impl_->options);
    for (const NewSide& side : plan.sides) readable_format(*side.codec, side.tokens, side.width);
  }
  apply_plan(plan, impl_->store, impl_->tables(), [&](const Plan& of, std::span<const SideId> sides) {
    KVA_CHECK(impl_->encoder, "payloads, where the host reads pages");
    if (impl_->encoder->code(of, sides)) impl_->refuse_numbers(of, sides);
  });
  impl_->note_peak();
}

int64_t KvCache::predicted_bytes(const Plan& plan) const {
  return kva::predicted_bytes(plan, impl_->store, impl_->tables());
}

std::vector<double> KvCache::bytes_by_layer() const {
  const Impl& impl = *impl_;
  std::vector<double> bytes(static_cast<std::size_t>(impl.options.layers), 0.0);
  const auto share = [&](SideId id) {
    double sum = 0.0;
    double part = 1.0;
    for (; id != kNoSide; id = impl.store.base(id)) {
      part /= static_cast<double>(impl.store.references(id));
      sum += part * static_cast<double>(impl.store.bytes(id));
    }
    return sum;
  };
  for (const CachedSequence& sequence : impl.sequences)
    for (std::size_t i = 0; i < sequence.tables.size(); ++i)
      for (const PageRef& ref : sequence.tables[i].pages)
        bytes[i / static_cast<std::size_t>(impl.options.kv_heads)] += share(ref.k) + share(ref.v);
  return bytes;
}

int64_t KvCache::side_footprint_bytes(int64_t bytes) {
  return PageStore::footprint_bytes(bytes) + static_cast<int64_t>(sizeof(PageRef)) / 2;
}

ByteLedger KvCache::ledger() const { return impl_->ledger(); }

}  // namespace kva
