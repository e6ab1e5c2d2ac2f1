#include "runtime/kv/kv_cache.h"

#include <fmt/format.h>

#include <algorithm>
#include <cstdint>
#include <utility>

#include "runtime/error.h"
#include "runtime/kv/kv_cache_impl.h"

namespace kva {
namespace {

// Encoding so many values takes longer than waking the pool.
constexpr int64_t kWorthThreads = 1 << 16;

}  // namespace

KvCacheOptions KvCache::Impl::checked(KvCacheOptions options) {
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
  if (options.backend->device()) check_device_options(options);
  return options;
}

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
    table.changed(std::ssize(table.pages) - 1);
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

// Makes room for the batch's tokens in the layer, and for their masses.
void KvCache::Impl::extend(int layer, const Batch& batch) {
  for (const BatchSpan& span : batch.spans) {
    CachedSequence& of = sequence(span.sequence);
    KVA_CHECK(span.start == of.tokens, "a span starts where its sequence ends");
    for (int h = 0; h < options.kv_heads; ++h) {
      const std::size_t index = table_index(layer, h);
      extend(of.tables[index], span.start, span.tokens);
      if (observed.empty() && !of.masses.mapped()) continue;
      const Observations asked = observed.empty() ? Observations() : observed[index];
      of.masses.extend(asked, index, table_count(), of.tables[index].end);
    }
  }
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
const Backend& KvCache::host_backend() const { return *impl_->host; }

SequenceId KvCache::add_sequence() { return impl_->add_sequence(); }

SequenceId KvCache::Impl::add_sequence() {
  std::size_t id = 0;
  while (id < sequences.size() && !sequences[id].tables.empty()) ++id;
  if (id == sequences.size()) sequences.push_back(blank_sequence());
  sequences[id].tables.resize(table_count(), PageTable(CountingAllocator<PageRef>(*host, table_bytes)));
  note_peak();
  return static_cast<SequenceId>(id);
}

// Shares the pages that hold the first `tokens` tokens.
SequenceId KvCache::Impl::fork(SequenceId id, int64_t tokens) {
  const SequenceId copy = add_sequence();
  const CachedSequence& from = sequence(id);
  CachedSequence& to = sequence(copy);
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
  if (impl.device) impl.device->forget(sequence);
  impl.begun.clear();  // of a step that failed
}

int64_t KvCache::tokens(SequenceId sequence) const { return impl_->sequence(sequence).tokens; }

void KvCache::begin_step(const Batch& batch) {
  if (impl_->device) impl_->begin_on_device(batch);
}

void KvCache::Impl::begin_on_device(const Batch& batch) {
  begun.clear();
  for (int layer = 0; layer < options.layers; ++layer) extend(layer, batch);
  device->begin_step([&](int layer) { return device_spans(layer, batch); }, batch.rows());
  begun = batch.spans;
  note_peak();
}

void KvCache::append(int layer, const Batch& batch, MatView<const float> k, MatView<const float> v) {
  Impl& impl = *impl_;
  const int kv_heads = impl.options.kv_heads;
  const int64_t dim = impl.options.head_dim;
  KVA_CHECK(k.rows == batch.rows() && v.rows == k.rows, "one row a token of the batch");
  KVA_CHECK(k.cols == kv_heads * dim && v.cols == k.cols, "rows hold the KV heads side by side");
  if (impl.device) {
    if (impl.begun != batch.spans) impl.begin_on_device(batch);
    return impl.device->append(layer, k, v);
  }
  impl.extend(layer, batch);
  int64_t positions = 0;
  for (const BatchSpan& span : batch.spans) positions = std::max(positions, span.start + span.tokens);
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

// The batch's spans that have tokens. Keys of all of them were appended.
std::span<DeviceSpan> KvCache::Impl::device_spans(int layer, const Batch& batch) {
  spans_on_device.clear();
  for (const BatchSpan& span : batch.spans) {
    const std::span<PageTable> tables(sequence(span.sequence).tables.data() + table_index(layer, 0),
                                      static_cast<std::size_t>(options.kv_heads));
    KVA_CHECK(span.tokens == 0 || tables[0].end == span.start + span.tokens,
              "keys are appended before queries attend");
    if (span.tokens == 0) continue;
    spans_on_device.push_back({.span = span, .tables = tables});
    AttentionMasses& masses = sequence(span.sequence).masses;
    if (observed.empty() && !masses.mapped()) continue;
    spans_on_device.back().masses = &masses;
    spans_on_device.back().first_table = table_index(layer, 0);
  }
  return spans_on_device;
}

void KvCache::attend(int layer, const Batch& batch, MatView<const float> q, MatView<float> out) {
  Impl& impl = *impl_;
  const int64_t cols = int64_t{impl.options.heads} * impl.options.head_dim;
  KVA_CHECK(q.rows == batch.rows() && out.rows == q.rows, "one row a token of the batch");
  KVA_CHECK(q.cols == cols && out.cols == cols, "rows hold the heads side by side");
  if (impl.device) {
    KVA_CHECK(impl.begun == batch.spans, "keys are appended before queries attend");
    impl.device->attend(layer, impl.device_spans(layer, batch), q, out);
    return impl.note_peak();
  }
  impl.spans.clear();
  for (const BatchSpan& span : batch.spans) {
    CachedSequence& sequence = impl.sequence(span.sequence);
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
  if (impl_->device) impl_->device->end_step([&](int layer) { return impl_->device_spans(layer, batch); });
  impl_->begun.clear();
  for (const BatchSpan& span : batch.spans) {
    CachedSequence& sequence = impl_->sequence(span.sequence);
    sequence.tokens = span.start + span.tokens;
    for (const PageTable& table : sequence.tables)
      KVA_CHECK(table.end == sequence.tokens, "a step appends to every layer before it ends");
  }
}

}  // namespace kva
