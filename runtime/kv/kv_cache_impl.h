// What a KvCache is made of; only for its own files.
#pragma once

#include <algorithm>
#include <cstdint>
#include <memory>
#include <span>
#include <vector>

#include "kernels/check.h"
#include "runtime/backend/counted_vector.h"
#include "runtime/kv/attention_masses.h"
#include "runtime/kv/kv_cache.h"
#include "runtime/kv/page_store.h"
#include "runtime/kv/page_table.h"
#include "runtime/kv/paged_attention.h"
#include "runtime/kv/turn_table.h"

namespace kva {

// One sequence's page tables, [layer * kv_heads + kv_head].
struct CachedSequence {
  CountedVector<PageTable> tables;  // empty: the id is free
  int64_t tokens = 0;
  AttentionMasses masses;
};

struct KvCache::Impl {
  KvCacheOptions options;
  ThreadPool& pool;
  std::shared_ptr<SideMemory> side_memory;
  PageStore store;
  TurnTable turns;
  PagedAttention attention;
  int64_t table_bytes = 0;
  int64_t map_bytes = 0;
  CountedVector<CachedSequence> sequences;
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
        sequences(CountingAllocator<CachedSequence>(*options.backend, table_bytes)),
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

  CachedSequence& sequence(SequenceId id) {
    KVA_CHECK(id >= 0 && static_cast<std::size_t>(id) < sequences.size(), "no such sequence");
    CachedSequence& found = sequences[static_cast<std::size_t>(id)];
    KVA_CHECK(!found.tables.empty(), "the sequence was freed");
    return found;
  }

  PageTable& table(SequenceId id, int layer, int kv_head) {
    return sequence(id).tables[table_index(layer, kv_head)];
  }

  CachedSequence blank_sequence() {
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

  // The options with a backend. Throws InputError where they cannot be.
  static KvCacheOptions checked(KvCacheOptions options);

  SequenceId add_sequence();
  SequenceId fork(SequenceId id, int64_t tokens);
  void extend(PageTable& table, int64_t start, int64_t tokens);
  std::span<const float> mass(SequenceId id, int layer, int kv_head, Mass which, bool Observations::*asked);
  void encode(const PageTable& table, const BatchSpan& span, MatView<const float> k, MatView<const float> v,
              int worker);
};

}  // namespace kva
