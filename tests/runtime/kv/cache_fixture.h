// A cache fed with random projections, beside a naive attention in double that never pages anything.
#pragma once

#include <cmath>
#include <cstdint>
#include <functional>
#include <memory>
#include <random>
#include <span>
#include <vector>

#include "kernels/check.h"
#include "kernels/convert.h"
#include "kernels/device_ops.h"
#include "runtime/kv/kv_cache.h"

namespace kva {

struct CacheShape {
  int layers = 1;
  int kv_heads = 2;
  int group = 1;
  int head_dim = 8;
  int page_tokens = 16;
  KeyBasis basis = KeyBasis::kRotated;
  DType type = DType::kF32;
  bool rope = true;
  PositionMode positions = PositionMode::kOriginal;

  int heads() const { return kv_heads * group; }
  KvCacheOptions options() const {
    KvCacheOptions options;
    options.layers = layers;
    options.kv_heads = kv_heads;
    options.heads = heads();
    options.head_dim = head_dim;
    options.page_tokens = page_tokens;
    options.k_codec = options.v_codec = make_dense_codec(type);
    options.key_basis = basis;
    options.positions = positions;
    if (rope) options.rope = Rope(head_dim, head_dim, 10000.0, {});
    options.scale = 1.0f / std::sqrt(static_cast<float>(head_dim));
    return options;
  }
};

// q, k and v of one sequence's tokens, the same for all layers; before RoPE.
struct Projections {
  Projections(const CacheShape& shape, int64_t tokens_, unsigned seed) : tokens(tokens_) {
    std::mt19937 random(seed);
    std::normal_distribution<float> normal;
    const auto fill = [&](std::vector<float>& values, int64_t cols) {
      values.resize(static_cast<std::size_t>(tokens * cols));
      for (float& value : values) value = normal(random);
    };
    fill(q, shape.heads() * shape.head_dim);
    fill(k, shape.kv_heads * shape.head_dim);
    fill(v, shape.kv_heads * shape.head_dim);
  }
  int64_t tokens;
  std::vector<float> q, k, v;
};

// Rows as a cache takes them: where its pages are on a device, in that device's memory.
class CacheRows {
 public:
  CacheRows(const KvCache& cache, std::vector<float>& rows, int64_t cols)
      : device_(cache.options().backend->device()), rows_(rows), cols_(cols), memory_(rows.data()) {
    if (!device_ || rows.empty()) return;
    memory_ = static_cast<float*>(device_->allocate(bytes()));
    KVA_CHECK(memory_ != nullptr, "a device with room for a test's rows");
    device_->upload(memory_, rows.data(), bytes());
  }
  ~CacheRows() {
    if (memory_ != rows_.data()) device_->free(memory_);
  }
  CacheRows(const CacheRows&) = delete;
  CacheRows& operator=(const CacheRows&) = delete;

  MatView<float> view() const { return {memory_, static_cast<int64_t>(rows_.size()) / cols_, cols_}; }
  void read_back() {
    if (memory_ != rows_.data()) device_->download(rows_.data(), memory_, bytes());
  }

 private:
  int64_t bytes() const { return static_cast<int64_t>(rows_.size() * sizeof(float)); }

  DeviceOps* device_;
  std::vector<float>& rows_;
  int64_t cols_;
  float* memory_;
};

// Runs steps over several sequences of one cache and keeps each one's attention output.
class CacheDriver {
 public:
  CacheDriver(const CacheShape& shape, ThreadPool& pool) : CacheDriver(shape.options(), shape, pool) {}
  CacheDriver(const KvCacheOptions& options, const CacheShape& shape, ThreadPool& pool)
      : shape_(shape), cache(options, pool) {}

  // Adds a sequence that will be fed from `source`.
  SequenceId add(const Projections& source) {
    const SequenceId id = cache.add_sequence();
    follow(id, source);
    return id;
  }
  void follow(SequenceId id, const Projections& source) {
    if (sources_.size() <= static_cast<std::size_t>(id)) {
      sources_.resize(static_cast<std::size_t>(id) + 1);
      outputs_.resize(static_cast<std::size_t>(id) + 1);
    }
    sources_[static_cast<std::size_t>(id)] = &source;
    outputs_[static_cast<std::size_t>(id)].assign(source.q.size(), 0.0f);
  }

  struct Take {
    SequenceId sequence;
    int64_t tokens;
  };
  // One step; the outputs of the last layer are kept.
  Batch step(const std::vector<Take>& takes) {
    Batch batch;
    std::vector<float> q, k, v;
    for (const Take& take : takes) {
      const Projections& source = *sources_[static_cast<std::size_t>(take.sequence)];
      const int64_t start = cache.tokens(take.sequence);
      batch.spans.push_back({take.sequence, batch.rows(), take.tokens, start});
      append_rows(q, source.q, source.tokens, start, take.tokens);
      append_rows(k, source.k, source.tokens, start, take.tokens);
      append_rows(v, source.v, source.tokens, start, take.tokens);
    }
    const int64_t kv_cols = shape_.kv_heads * shape_.head_dim;
    const int64_t cols = shape_.heads() * shape_.head_dim;
    std::vector<float> out(q.size(), -1.0f);
    const CacheRows queries(cache, q, cols), keys(cache, k, kv_cols), values(cache, v, kv_cols);
    CacheRows attended(cache, out, cols);
    // As the decoder does.
    DeviceOps* device = cache.options().backend->device();
    cache.begin_step(batch);
    if (device && batch.rows() == std::ssize(batch.spans)) device->begin_recording();
    for (int layer = 0; layer < shape_.layers; ++layer) {
      cache.append(layer, batch, keys.view(), values.view());
      cache.attend(layer, batch, queries.view(), attended.view());
    }
    if (device) device->end_recording();
    attended.read_back();
    cache.end_step(batch);
    for (const BatchSpan& span : batch.spans)
      std::copy_n(out.begin() + span.first_row * cols, span.tokens * cols,
                  outputs_[static_cast<std::size_t>(span.sequence)].begin() + span.start * cols);
    return batch;
  }
  // Feeds the rest of a sequence in chunks.
  void feed(SequenceId id, int64_t chunk) {
    const int64_t total = sources_[static_cast<std::size_t>(id)]->tokens;
    while (cache.tokens(id) < total) step({{id, std::min(chunk, total - cache.tokens(id))}});
  }

  const std::vector<float>& output(SequenceId id) const { return outputs_[static_cast<std::size_t>(id)]; }

 private:
  static void append_rows(std::vector<float>& to, const std::vector<float>& from, int64_t rows, int64_t first,
                          int64_t count) {
    const int64_t cols = static_cast<int64_t>(from.size()) / rows;
    to.insert(to.end(), from.begin() + first * cols, from.begin() + (first + count) * cols);
  }

  CacheShape shape_;
  std::vector<const Projections*> sources_;
  std::vector<std::vector<float>> outputs_;

 public:
  KvCache cache;
};

// What is added to the score of key s for the query at t; -inf hides the key.
using NaiveBias = std::function<double(int64_t s, int64_t t)>;
// Query head h at position t gives weights[s] to the keys at s <= t.
using NaiveVisit = std::function<void(int64_t h, int64_t t, const std::vector<double>& weights)>;

// One head rotated in double by Hugging Face's f32 angles.
inline std::vector<double> naive_rotated(const CacheShape& shape, const float* head, int64_t position) {
  const int64_t dim = shape.head_dim;
  std::vector<double> out(head, head + dim);
  if (!shape.rope) return out;
  const Rope rope(shape.head_dim, shape.head_dim, 10000.0, {});
  for (int64_t i = 0; i < dim / 2; ++i) {
    const float angle =
        static_cast<float>(position) * rope.inverse_frequencies()[static_cast<std::size_t>(i)];
    out[static_cast<std::size_t>(i)] =
        head[i] * std::cos(double{angle}) - head[i + dim / 2] * std::sin(double{angle});
    out[static_cast<std::size_t>(i + dim / 2)] =
        head[i + dim / 2] * std::cos(double{angle}) + head[i] * std::sin(double{angle});
  }
  return out;
}

// Causal attention weights in double over whole sequences.
inline void naive_weights(const CacheShape& shape, const Projections& p, const NaiveBias& bias,
                          const NaiveVisit& visit) {
  const int64_t dim = shape.head_dim, heads = shape.heads(), kv_cols = shape.kv_heads * dim;
  for (int64_t h = 0; h < heads; ++h) {
    const int64_t kv = h / shape.group;
    std::vector<std::vector<double>> keys;
    for (int64_t t = 0; t < p.tokens; ++t) {
      keys.push_back(naive_rotated(shape, p.k.data() + t * kv_cols + kv * dim, t));
      const auto query = naive_rotated(shape, p.q.data() + (t * heads + h) * dim, t);
      std::vector<double> weights;
      double max = -1e300, sum = 0.0;
      for (int64_t s = 0; s <= t; ++s) {
        double dot = 0.0;
        for (std::size_t i = 0; i < query.size(); ++i) dot += query[i] * keys[static_cast<std::size_t>(s)][i];
        weights.push_back(dot / std::sqrt(static_cast<double>(dim)) + (bias ? bias(s, t) : 0.0));
        max = std::max(max, weights.back());
      }
      for (double& weight : weights) sum += weight = std::exp(weight - max);
      for (double& weight : weights) weight /= sum;
      visit(h, t, weights);
    }
  }
}

inline std::vector<double> naive_attention(const CacheShape& shape, const Projections& p,
                                           const NaiveBias& bias = {}) {
  const int64_t dim = shape.head_dim, heads = shape.heads(), kv_cols = shape.kv_heads * dim;
  std::vector<double> result(p.q.size());
  naive_weights(shape, p, bias, [&](int64_t h, int64_t t, const std::vector<double>& weights) {
    double* out = result.data() + (t * heads + h) * dim;
    const float* values = p.v.data() + h / shape.group * dim;
    for (std::size_t s = 0; s < weights.size(); ++s)
      for (int64_t i = 0; i < dim; ++i)
        out[i] += weights[s] * double{values[static_cast<int64_t>(s) * kv_cols + i]};
  });
  return result;
}

// What each key got of the queries that count, [kv_heads][tokens], averaged over the heads of a group.
using NaiveCounts = std::function<bool(int64_t s, int64_t t)>;
inline std::vector<std::vector<double>> naive_mass(const CacheShape& shape, const Projections& p,
                                                   const NaiveCounts& counts, const NaiveBias& bias = {}) {
  std::vector<std::vector<double>> mass(static_cast<std::size_t>(shape.kv_heads),
                                        std::vector<double>(static_cast<std::size_t>(p.tokens)));
  naive_weights(shape, p, bias, [&](int64_t h, int64_t t, const std::vector<double>& weights) {
    for (std::size_t s = 0; s < weights.size(); ++s)
      if (counts(static_cast<int64_t>(s), t))
        mass[static_cast<std::size_t>(h / shape.group)][s] += weights[s] / shape.group;
  });
  return mass;
}

// Of the first `queries` queries.
inline std::vector<std::vector<double>> naive_mass(const CacheShape& shape, const Projections& p,
                                                   int64_t queries, const NaiveBias& bias = {}) {
  return naive_mass(
      shape, p, [&](int64_t, int64_t t) { return t < queries; }, bias);
}

}  // namespace kva
