// What a KvCache is made of; only for its own files.
#pragma once

#include <algorithm>
#include <cstdint>
#include <memory>
#include <optional>
#include <span>
#include <vector>

#include "kernels/check.h"
#include "runtime/backend/counted_vector.h"
#include "runtime/kv/attention_masses.h"
#include "runtime/kv/device_attention.h"
#include "runtime/kv/device_encoder.h"
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
  std::shared_ptr<Backend> host;  // options.backend, where the host reads it
  std::shared_ptr<SideMemory> side_memory;
  PageStore store;
  TurnTable turns;
  PagedAttention attention;
  std::optional<DeviceAttention> device;  // in place of `attention`, where pages are on a device
  std::optional<DeviceEncoder> encoder;   // there too
  int64_t table_bytes = 0;
  int64_t map_bytes = 0;
  CountedVector<CachedSequence> sequences;
  Buffer encode_scratch;  // [threads, page_tokens, head_dim] f32
  int64_t peak_bytes = 0;
  std::vector<AttentionSpan> spans;
  std::vector<DeviceSpan> spans_on_device;
  std::vector<BatchSpan> begun;        // the step on a device
  std::vector<Observations> observed;  // [layer * kv_heads + kv_head], or empty: nothing

  Impl(const KvCacheOptions& asked, ThreadPool& pool_)
      : options(checked(asked)),
        pool(pool_),
        host(options.backend->device() ? make_cpu_backend() : options.backend),
        side_memory(
            std::make_shared<SideMemory>(host, options.backend->device() ? options.backend : nullptr)),
        store(*options.backend, *host, options.head_dim, options.page_tokens),
        turns(*host, options.rope),
        attention(options, store, turns, *host, pool),
        sequences(CountingAllocator<CachedSequence>(*host, table_bytes)) {
    if (on_device()) {
      device.emplace(options, store, *options.backend, *host);
      encoder.emplace(store, *options.backend);
    } else {
      encode_scratch =
          Buffer(*host, pool.threads() * page_values() * int64_t{sizeof(float)}, "encoding workspace");
    }
    note_peak();
  }

  bool on_device() const { return options.backend->device() != nullptr; }

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
    return {.tables = CountedVector<PageTable>(CountingAllocator<PageTable>(*host, table_bytes)),
            .tokens = 0,
            .masses = AttentionMasses(CountingAllocator<float>(*host, table_bytes),
                                      CountingAllocator<AttentionMap>(*host, map_bytes))};
  }

  ByteLedger ledger() const {
    ByteLedger result;
    store.add_to(result);
    result.side += side_memory->held_bytes() + side_memory->device_held_bytes();
    result.tables += table_bytes;
    result.workspace =
        attention.workspace_bytes() + turns.held_bytes() + encode_scratch.held_bytes() + map_bytes;
    if (device) {
      result.beside += side_memory->held_bytes() + table_bytes + result.workspace;
      device->add_to(result);
      encoder->add_to(result);
    }
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
  // Throws InputError for the first side of the plan whose sources have numbers that its codec refuses.
  void refuse_numbers(const Plan& plan, std::span<const SideId> sides);

  SequenceId add_sequence();
  SequenceId fork(SequenceId id, int64_t tokens);
  void extend(PageTable& table, int64_t start, int64_t tokens);
  void extend(int layer, const Batch& batch);
  void begin_on_device(const Batch& batch);
  std::span<DeviceSpan> device_spans(int layer, const Batch& batch);
  std::span<const float> mass(SequenceId id, int layer, int kv_head, Mass which, bool Observations::*asked);
  void encode(const PageTable& table, const BatchSpan& span, MatView<const float> k, MatView<const float> v,
              int worker);
};

}  // namespace kva
