// A cache of SmolLM2-135M's heads (3 KV heads, 3 queries each, 64 numbers), of as many layers as wanted, for
// benchmarks of attention. All layers hold the same random numbers.
#pragma once

#include <algorithm>
#include <cstdint>
#include <functional>
#include <random>
#include <vector>

#include "runtime/kv/kv_cache.h"

namespace kva {

class FilledCache {
 public:
  static constexpr int kKvHeads = 3;
  static constexpr int kGroup = 3;
  static constexpr int kHeadDim = 64;

  static KvCacheOptions options(DType type, int layers, int page_tokens, KeyBasis basis) {
    KvCacheOptions options;
    options.layers = layers;
    options.kv_heads = kKvHeads;
    options.heads = kKvHeads * kGroup;
    options.head_dim = kHeadDim;
    options.page_tokens = page_tokens;
    options.k_codec = options.v_codec = make_dense_codec(type);
    options.key_basis = basis;
    options.rope = Rope(kHeadDim, kHeadDim, 100000.0, {});
    options.scale = 0.125f;
    return options;
  }

  // Empty. The pool outlives it.
  FilledCache(const KvCacheOptions& options, ThreadPool& pool)
      : cache(options, pool), id_(cache.add_sequence()) {
    std::mt19937 random(1);
    std::normal_distribution<float> normal;
    rows_.resize(static_cast<std::size_t>(kChunk * kKvHeads * kGroup * kHeadDim));
    out_.resize(rows_.size());
    for (float& value : rows_) value = normal(random);
  }

  // Until the sequence has `tokens` tokens; each step is told to `stepped`.
  void fill(int64_t tokens, const std::function<void(const Batch&)>& stepped = {}) {
    while (cache.tokens(id_) < tokens) {
      const Batch batch = append(std::min(kChunk, tokens - cache.tokens(id_)));
      cache.end_step(batch);
      if (stepped) stepped(batch);
    }
  }

  // Begins a step of `tokens` tokens, which attend() can read again and again.
  Batch append(int64_t tokens) {
    const Batch batch{{{id_, 0, tokens, cache.tokens(id_)}}};
    const MatView<const float> kv(rows_.data(), tokens, kKvHeads * kHeadDim, kKvHeads * kGroup * kHeadDim);
    for (int layer = 0; layer < cache.options().layers; ++layer) cache.append(layer, batch, kv, kv);
    return batch;
  }

  void attend(int layer, const Batch& batch) {
    const MatView<const float> q(rows_.data(), batch.rows(), kKvHeads * kGroup * kHeadDim);
    cache.attend(layer, batch, q, MatView<float>(out_.data(), q.rows, q.cols));
  }

  // All layers.
  void attend(const Batch& batch) {
    for (int layer = 0; layer < cache.options().layers; ++layer) attend(layer, batch);
  }

  KvCache cache;

 private:
  static constexpr int64_t kChunk = 512;

  SequenceId id_;
  std::vector<float> rows_, out_;
};

}  // namespace kva
