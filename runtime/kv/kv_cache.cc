#include "runtime/kv/kv_cache.h"

#include <fmt/format.h>

#include <algorithm>
#include <cstdint>
#include <utility>
#include <vector>

#include "kernels/check.h"
#include "runtime/error.h"
#include "runtime/kv/attention_masses.h"
#include "runtime/kv/page_store.h"
#include "runtime/kv/page_table.h"
#include "runtime/kv/paged_attention.h"
#include "runtime/kv/turn_table.h"

namespace kva {
namespace {

// Encoding so many values takes longer than waking the pool.
constexpr int64_t kWorthThreads = 1 << 16;

// One sequence's page tables, [layer * kv_heads + kv_head].
struct Sequence {
  CountedVector<PageTable> tables;  // empty: the id is free
  int64_t tokens = 0;
  AttentionMasses masses;
};

KvCacheOptions checked(KvCacheOptions options) {
  KVA_CHECK(options.layers > 0 && options.kv_heads > 0 && options.head_dim > 0, "a cache has a shape");
  KVA_CHECK(options.heads > 0 && options.heads % options.kv_heads == 0, "heads are a multiple of KV heads");
  KVA_CHECK(options.k_codec && options.v_codec, "both sides have a codec");
  KVA_CHECK(!options.rope || options.rope->head_dim() == options.head_dim, "RoPE is for this head size");
  if (options.page_tokens < 1 || options.page_tokens > kMaxPageTokens)
    throw InputError(
        fmt::format("page size: expected 1 to {} tokens, found {}", kMaxPageTokens, options.page_tokens));
  if (options.positions == PositionMode::kCacheRelative) {
    if (options.key_basis != KeyBasis::kPlain)
      throw InputError(fmt::format("cache-relative positions: expected keys(plain), found keys({})",
                                   key_basis_name(options.key_basis)));
    if (!options.rope)
      throw InputError(
          "cache-relative positions: expected a model with rotary positions, found one without; use "
          "keys(plain)");
  }
  if (!options.backend) options.backend = make_cpu_backend();
  return options;
}

}  // namespace

struct KvCache::Impl {
  KvCacheOptions options;
  ThreadPool& pool;
  std::shared_ptr<SideMemory> side_memory;
  PageStore store;
  TurnTable turns;
  PagedAttention attention;
  int64_t table_bytes = 0;
  int64_t map_bytes = 0;
  CountedVector<Sequence> sequences;
  Buffer encode_scratch;  // [threads, page_tokens, head_dim] f32
  int64_t peak_bytes = 0;
  std::vector<AttentionSpan> spans;
  std::vector<Observations> observed;  // [layer * kv_heads + kv_head], or empty: nothing

  Impl(const KvCacheOptions& asked, ThreadPool& pool_)
      : options(checked(asked)),
        pool(pool_),
        side_memory(std::make_shared<SideMemory>(options.backend)),
        store(*options.backend, options.head_dim, options.page_tokens),
        turns(*options.backend, options.rope),
        attention(options, store, turns, *options.backend, pool),
        sequences(CountingAllocator<Sequence>(*options.backend, table_bytes)),
        encode_scratch(*options.backend, pool.threads() * page_values() * static_cast<int64_t>(sizeof(float)),
                       "encoding workspace") {
    note_peak();
  }

  int64_t page_values() const { return int64_t{options.page_tokens} * options.head_dim; }
  std::size_t table_count() const {
    return static_cast<std::size_t>(options.layers) * static_cast<std::size_t>(options.kv_heads);
  }
  std::size_t table_index(int layer, int kv_head) const {
    KVA_CHECK(layer >= 0 && layer < options.layers && kv_head >= 0 && kv_head < options.kv_heads,
              "no such layer or KV head");
    return static_cast<std::size_t>(layer) * static_cast<std::size_t>(options.kv_heads) +
           static_cast<std::size_t>(kv_head);
  }

  Sequence& sequence(SequenceId id) {
    KVA_CHECK(id >= 0 && static_cast<std::size_t>(id) < sequences.size(), "no such sequence");
    Sequence& found = sequences[static_cast<std::size_t>(id)];
    KVA_CHECK(!found.tables.empty(), "the sequence was freed");
    return found;
  }

  PageTable& table(SequenceId id, int layer, int kv_head) {
    return sequence(id).tables[table_index(layer, kv_head)];
  }

  Sequence blank_sequence() {
    return {.tables = CountedVector<PageTable>(CountingAllocator<PageTable>(*options.backend, table_bytes)),
            .tokens = 0,
            .masses = AttentionMasses(CountingAllocator<float>(*options.backend, table_bytes),
                                      CountingAllocator<AttentionMap>(*options.backend, map_bytes))};
  }

  ByteLedger ledger() const {
    ByteLedger result;
    store.add_to(result);
    result.side += side_memory->held_bytes();
    result.tables += table_bytes;
    result.workspace =
        attention.workspace_bytes() + turns.held_bytes() + encode_scratch.held_bytes() + map_bytes;
    result.peak = std::max(peak_bytes, result.held());
    return result;
  }

  void note_peak() { peak_bytes = ledger().peak; }

  PageRef& ref(SequenceId id, int layer, int kv_head, int64_t page) {
    PageTable& of = table(id, layer, kv_head);
    KVA_CHECK(page >= 0 && page < static_cast<int64_t>(of.pages.size()), "no such page");
    return of.pages[static_cast<std::size_t>(page)];
  }

  void retain(const PageRef& ref) {
    for (const SideId id : {ref.k, ref.v, ref.where})
      if (id != kNoSide) store.retain(id);
  }
  void release(const PageRef& ref) {
    for (const SideId id : {ref.k, ref.v, ref.where})
      if (id != kNoSide) store.release(id);
  }

  TableLookup tables() {
    return [this](SequenceId id, int layer, int kv_head) -> PageTable& { return table(id, layer, kv_head); };
  }

  SequenceId add_sequence();
  SequenceId fork(SequenceId id, int64_t tokens);
  void extend(PageTable& table, int64_t start, int64_t tokens);
  std::span<const float> mass(SequenceId id, int layer, int kv_head, Mass which, bool Observations::*asked);
  void encode(const PageTable& table, const BatchSpan& span, MatView<const float> k, MatView<const float> v,
              int worker);
};

// Makes room for tokens at [start, start + tokens) in the table: in its open tail, then in new pages.
void KvCache::Impl::extend(PageTable& table, int64_t start, int64_t tokens) {
  KVA_CHECK(table.end == start, "tokens are appended in order, once a step");
  KVA_CHECK(start + tokens <= INT32_MAX, "positions have 31 bits");
  while (tokens > 0) {
    if (!table.open) {
      reserve_one_more(table.pages);
      table.pages.push_back({.start = static_cast<int32_t>(start)});
      table.open = true;
      PageRef& added = table.pages.back();
      added.k = store.allocate(options.k_codec, Lane::kKeys);
      added.v = store.allocate(options.v_codec, Lane::kValues);
    }
    PageRef& tail = table.pages.back();
    const int64_t count = std::min<int64_t>(tokens, options.page_tokens - tail.tokens);
    tail.k = store.make_unique(tail.k);
    tail.v = store.make_unique(tail.v);
    tail.tokens += static_cast<int32_t>(count);
    store.set_tokens(tail.k, tail.tokens);
    store.set_tokens(tail.v, tail.tokens);
    table.open = tail.tokens < options.page_tokens;
    start += count;
    tokens -= count;
  }
  table.end = start;
}

// Writes rows k, v [span.tokens, head_dim] of one head into the pages that extend() made room in.
void KvCache::Impl::encode(const PageTable& table, const BatchSpan& span, MatView<const float> k,
                           MatView<const float> v, int worker) {
  const bool rotate = turns.rotates() && options.key_basis != KeyBasis::kPlain;
  float* scratch = reinterpret_cast<float*>(encode_scratch.data()) + worker * page_values();
  auto page = table.pages.end();
  while (page != table.pages.begin() && (page - 1)->end() > span.start) --page;
  for (int64_t row = 0; row < span.tokens; ++page) {
    const int64_t first = span.start + row - page->start;
    const int64_t count = page->tokens - first;
    MatView<const float> keys = k.row_range(row, count);
    if (rotate) {
      const MatView<float> turned(scratch, count, options.head_dim);
      for (int64_t r = 0; r < count; ++r) std::copy_n(keys.row(r), keys.cols, turned.row(r));
      turns.rotate(turned, options.key_basis == KeyBasis::kRotated ? page->start + first : first, 1);
      keys = turned;
    }
    options.k_codec->append(keys, first, store.writable_payload(page->k));
    options.v_codec->append(v.row_range(row, count), first, store.writable_payload(page->v));
    row += count;
  }
}

KvCache::KvCache(const KvCacheOptions& options, ThreadPool& pool)
    : impl_(std::make_unique<Impl>(options, pool)) {}

KvCache::~KvCache() = default;

const KvCacheOptions& KvCache::options() const { return impl_->options; }

const Backend& KvCache::backend() const { return *impl_->options.backend; }

SequenceId KvCache::add_sequence() { return impl_->add_sequence(); }

SequenceId KvCache::Impl::add_sequence() {
  std::size_t id = 0;
  while (id < sequences.size() && !sequences[id].tables.empty()) ++id;
  if (id == sequences.size()) sequences.push_back(blank_sequence());
  sequences[id].tables.resize(table_count(),
                              PageTable(CountingAllocator<PageRef>(*options.backend, table_bytes)));
  note_peak();
  return static_cast<SequenceId>(id);
}

// Shares the pages that hold the first `tokens` tokens.
SequenceId KvCache::Impl::fork(SequenceId id, int64_t tokens) {
  const SequenceId copy = add_sequence();
  const Sequence& from = sequence(id);
  Sequence& to = sequence(copy);
  to.tokens = tokens;
  for (std::size_t i = 0; i < from.tables.size(); ++i) {
    const PageTable& source = from.tables[i];
    PageTable& target = to.tables[i];
    for (const PageRef& ref : source.pages) {
      if (ref.start >= tokens) break;
      KVA_CHECK(ref.where == kNoSide || PagePlaces(store, ref).last_position() < tokens,
                "a page that reaches behind the prefix is forked with the whole");
      target.pages.push_back(ref);
      retain(ref);
    }
    target.end = tokens;
    target.open = source.open && target.pages.size() == source.pages.size();
  }
  to.masses = from.masses;
  to.masses.cut(tokens);
  to.masses.stop_maps();
  note_peak();
  return copy;
}

SequenceId KvCache::fork_sequence(SequenceId sequence) { return impl_->fork(sequence, tokens(sequence)); }

SequenceId KvCache::fork_sequence(SequenceId sequence, int64_t tokens) {
  KVA_CHECK(tokens >= 0 && tokens <= this->tokens(sequence) && tokens % impl_->options.page_tokens == 0,
            "a prefix is full pages of the sequence");
  return impl_->fork(sequence, tokens);
}

void KvCache::free_sequence(SequenceId sequence) {
  Impl& impl = *impl_;
  for (const PageTable& table : impl.sequence(sequence).tables) {
    for (const PageRef& ref : table.pages) impl.release(ref);
  }
  impl.sequences[static_cast<std::size_t>(sequence)] = impl.blank_sequence();
}

int64_t KvCache::tokens(SequenceId sequence) const { return impl_->sequence(sequence).tokens; }

void KvCache::append(int layer, const Batch& batch, MatView<const float> k, MatView<const float> v) {
  Impl& impl = *impl_;
  const int kv_heads = impl.options.kv_heads;
  const int64_t dim = impl.options.head_dim;
  KVA_CHECK(k.rows == batch.rows() && v.rows == k.rows, "one row a token of the batch");
  KVA_CHECK(k.cols == kv_heads * dim && v.cols == k.cols, "rows hold the KV heads side by side");
  int64_t positions = 0;
  for (const BatchSpan& span : batch.spans) {
    KVA_CHECK(span.start == impl.sequence(span.sequence).tokens, "a span starts where its sequence ends");
    positions = std::max(positions, span.start + span.tokens);
    for (int h = 0; h < kv_heads; ++h) {
      PageTable& table = impl.table(span.sequence, layer, h);
      impl.extend(table, span.start, span.tokens);
      AttentionMasses& masses = impl.sequence(span.sequence).masses;
      if (impl.observed.empty() && !masses.mapped()) continue;
      const std::size_t index = impl.table_index(layer, h);
      const Observations asked = impl.observed.empty() ? Observations() : impl.observed[index];
      masses.extend(asked, index, impl.table_count(), table.end);
    }
  }
  impl.turns.reserve(positions);
  const auto work = [&](int64_t index, int worker) {
    const BatchSpan& span = batch.spans[static_cast<std::size_t>(index / kv_heads)];
    const int h = static_cast<int>(index % kv_heads);
    impl.encode(impl.table(span.sequence, layer, h), span,
                k.row_range(span.first_row, span.tokens).col_range(h * dim, dim),
                v.row_range(span.first_row, span.tokens).col_range(h * dim, dim), worker);
  };
  const int64_t count = static_cast<int64_t>(batch.spans.size()) * kv_heads;
  if (k.rows * k.cols >= kWorthThreads) {
    impl.pool.parallel_for(count, work);
  } else {
    for (int64_t i = 0; i < count; ++i) work(i, 0);
  }
  impl.note_peak();
}

void KvCache::attend(int layer, const Batch& batch, MatView<const float> q, MatView<float> out) {
  Impl& impl = *impl_;
  const int64_t cols = int64_t{impl.options.heads} * impl.options.head_dim;
  KVA_CHECK(q.rows == batch.rows() && out.rows == q.rows, "one row a token of the batch");
  KVA_CHECK(q.cols == cols && out.cols == cols, "rows hold the heads side by side");
  impl.spans.clear();
  for (const BatchSpan& span : batch.spans) {
    Sequence& sequence = impl.sequence(span.sequence);
    const std::size_t first = impl.table_index(layer, 0);
    const auto heads = static_cast<std::size_t>(impl.options.kv_heads);
    const std::span<const PageTable> of_layer(sequence.tables.data() + first, heads);
    KVA_CHECK(span.tokens == 0 || of_layer[0].end == span.start + span.tokens,
              "keys are appended before queries attend");
    if (span.tokens == 0) continue;
    impl.spans.push_back({.span = span, .tables = of_layer});
    if (!impl.observed.empty() || sequence.masses.mapped()) {
      impl.spans.back().masses = &sequence.masses;
      impl.spans.back().first_table = first;
    }
  }
  impl.attention.attend(impl.spans, q, out);
}

void KvCache::end_step(const Batch& batch) {
  for (const BatchSpan& span : batch.spans) {
    Sequence& sequence = impl_->sequence(span.sequence);
    sequence.tokens = span.start + span.tokens;
    for (const PageTable& table : sequence.tables)
      KVA_CHECK(table.end == sequence.tokens, "a step appends to every layer before it ends");
  }
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

void KvCache::observe(int layer, int kv_head, const Observations& what) {
  Impl& impl = *impl_;
  const std::size_t table = impl.table_index(layer, kv_head);
  if (!what.any()) return;
  impl.observed.resize(impl.table_count());
  impl.observed[table] = impl.observed[table] | what;
}

std::span<const float> KvCache::Impl::mass(SequenceId id, int layer, int kv_head, Mass which,
                                           bool Observations::*asked) {
  const std::size_t table = table_index(layer, kv_head);
  KVA_CHECK(!observed.empty() && observed[table].*asked, "a mass is there where it was asked for");
  return sequence(id).masses.of(which, table);
}

std::span<const float> KvCache::attention_mass(SequenceId sequence, int layer, int kv_head) const {
  return impl_->mass(sequence, layer, kv_head, Mass::kAll, &Observations::attention_mass);
}

std::span<const float> KvCache::late_mass(SequenceId sequence, int layer, int kv_head) const {
  return impl_->mass(sequence, layer, kv_head, Mass::kLate, &Observations::late_mass);
}

std::span<const float> KvCache::near_mass(SequenceId sequence, int layer, int kv_head) const {
  return impl_->mass(sequence, layer, kv_head, Mass::kNear, &Observations::near_mass);
}

void KvCache::set_late_start(SequenceId sequence, int64_t position) {
  AttentionMasses& masses = impl_->sequence(sequence).masses;
  masses.late_start = position;
  masses.reset(Mass::kLate);
}

void KvCache::set_near_tokens(SequenceId sequence, int64_t tokens) {
  KVA_CHECK(tokens >= 0, "a number of tokens");
  AttentionMasses& masses = impl_->sequence(sequence).masses;
  masses.near_tokens = std::min<int64_t>(tokens, INT32_MAX);
  masses.reset(Mass::kNear);
}

void KvCache::map_attention(SequenceId sequence) {
  impl_->sequence(sequence).masses.start_maps(impl_->table_count());
}

const AttentionMap& KvCache::attention_map(SequenceId sequence, int layer, int kv_head) const {
  const AttentionMasses& masses = impl_->sequence(sequence).masses;
  KVA_CHECK(masses.mapped(), "a map is there where it was asked for");
  return masses.map(impl_->table_index(layer, kv_head));
}

double KvCache::observe_seconds() const { return impl_->attention.observe_seconds(); }

bool KvCache::holds(SideId side, const SideCodec& codec, std::span<const std::byte> payload) const {
  const PageStore& store = impl_->store;
  return &store.codec(side) == &codec && store.base(side) == kNoSide &&
         store.bytes(side) == static_cast<int64_t>(payload.size()) &&
         std::equal(payload.begin(), payload.end(), store.data(side).payload);
}

std::shared_ptr<SideMemory> KvCache::side_memory() const { return impl_->side_memory; }

void KvCache::apply(const Plan& plan) {
  for (const PlanRewrite& rewrite : plan.rewrites)
    KVA_CHECK(static_cast<int64_t>(rewrite.positions.size()) <= impl_->options.page_tokens,
              "a page holds page_tokens tokens at most");
  apply_plan(plan, impl_->store, impl_->tables());
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
  for (const Sequence& sequence : impl.sequences)
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
