// Attention over a paged cache of SmolLM2-135M's shape (3 KV heads, 3 queries each, 64 numbers), one layer.
// Decoding is bound by reading K and V: GB/s beside the read bandwidth of as many threads. Prefill is bound
// by products: GFLOP/s of the causal half beside the f32 product peak. Limits are probed in turns (probes.h).
#include <benchmark/benchmark.h>

#include <cmath>
#include <cstring>
#include <memory>
#include <random>
#include <vector>

#include "runtime/kv/kv_cache.h"
#include "tests/bench/probes.h"

namespace kva {
namespace {

constexpr int kKvHeads = 3;
constexpr int kGroup = 3;
constexpr int kHeadDim = 64;

// A filled cache of several layers, so that decoding walks through more than the processor's caches hold.
struct Filled {
  Filled(DType type, int layers, int64_t tokens, int page_tokens, int threads, KeyBasis basis)
      : pool(threads), cache(options(type, layers, page_tokens, basis), pool), id(cache.add_sequence()) {
    std::mt19937 random(1);
    std::normal_distribution<float> normal;
    rows.resize(static_cast<std::size_t>(kChunk * kKvHeads * kGroup * kHeadDim));
    out.resize(rows.size());
    for (float& value : rows) value = normal(random);
    while (cache.tokens(id) < tokens) extend(std::min(kChunk, tokens - cache.tokens(id)), layers);
  }

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

  Batch next(int64_t tokens) const { return {{{id, 0, tokens, cache.tokens(id)}}}; }
  MatView<const float> kv(int64_t tokens) const {
    return {rows.data(), tokens, kKvHeads * kHeadDim, kKvHeads * kGroup * kHeadDim};
  }
  MatView<const float> q(int64_t tokens) const { return {rows.data(), tokens, kKvHeads * kGroup * kHeadDim}; }
  MatView<float> result(int64_t tokens) { return {out.data(), tokens, kKvHeads * kGroup * kHeadDim}; }

  void extend(int64_t tokens, int layers) {
    const Batch batch = next(tokens);
    for (int layer = 0; layer < layers; ++layer) cache.append(layer, batch, kv(tokens), kv(tokens));
    cache.end_step(batch);
  }

  static constexpr int64_t kChunk = 512;
  ThreadPool pool;
  KvCache cache;
  SequenceId id;
  std::vector<float> rows, out;
};

void decode(benchmark::State& state, DType type, KeyBasis basis) {
  const int64_t tokens = state.range(0);
  const int page_tokens = static_cast<int>(state.range(1));
  const int threads = static_cast<int>(state.range(2));
  // About 256 MiB in all: beyond L2, whatever the context.
  const int64_t layer_bytes = tokens * kKvHeads * kHeadDim * 2 * dtype_bytes(type);
  const int layers = static_cast<int>(std::clamp<int64_t>((256 << 20) / layer_bytes, 1, 512));
  Filled filled(type, layers, tokens - 1, page_tokens, threads, basis);
  const Batch batch = filled.next(1);
  for (int layer = 0; layer < layers; ++layer) filled.cache.append(layer, batch, filled.kv(1), filled.kv(1));
  ReadProbe probe(layers * layer_bytes);
  const auto step = [&] {
    for (int layer = 0; layer < layers; ++layer)
      filled.cache.attend(layer, batch, filled.q(1), filled.result(1));
  };
  step();
  Turns turns;
  for (auto _ : state) {
    turns.own.push_back(seconds_of(step));
    turns.probe.push_back(probe.seconds(filled.pool));
    state.SetIterationTime(turns.own.back());
  }
  turns.report(state, static_cast<double>(layers * layer_bytes), probe.bytes(), kGiga);
}

void prefill(benchmark::State& state, DType type, KeyBasis basis) {
  const int64_t tokens = state.range(0);
  const int64_t chunk = 256;
  Filled filled(type, 1, tokens - chunk, 16, static_cast<int>(state.range(1)), basis);
  const Batch batch = filled.next(chunk);
  filled.cache.append(0, batch, filled.kv(chunk), filled.kv(chunk));
  ProductProbe probe(DType::kF32, filled.pool);
  const auto step = [&] { filled.cache.attend(0, batch, filled.q(chunk), filled.result(chunk)); };
  step();
  probe.seconds();
  Turns turns;
  for (auto _ : state) {
    turns.own.push_back(seconds_of(step));
    turns.probe.push_back(probe.seconds());
    state.SetIterationTime(turns.own.back());
  }
  const double pairs = static_cast<double>(chunk * (tokens - chunk) + chunk * (chunk + 1) / 2);
  turns.report(state, pairs * 4 * kHeadDim * kKvHeads * kGroup, probe.flops(), kGiga);
}

void decode_cases(benchmark::internal::Benchmark* bench) {
  bench->ArgNames({"tokens", "page", "threads"})->UseManualTime()->Unit(benchmark::kMillisecond);
  for (const int64_t threads : thread_counts())
    for (const int64_t tokens : {512, 2048, 8192}) bench->Args({tokens, 16, threads});
  bench->Args({2048, 64, 1});
}

void prefill_cases(benchmark::internal::Benchmark* bench) {
  bench->ArgNames({"tokens", "threads"})->UseManualTime()->Unit(benchmark::kMillisecond);
  for (const int64_t threads : thread_counts()) bench->Args({2048, threads});
}

BENCHMARK_CAPTURE(decode, f16, DType::kF16, KeyBasis::kRotated)->Apply(decode_cases);
BENCHMARK_CAPTURE(decode, bf16, DType::kBF16, KeyBasis::kRotated)->Apply(decode_cases);
BENCHMARK_CAPTURE(decode, f32, DType::kF32, KeyBasis::kRotated)->Apply(decode_cases);
BENCHMARK_CAPTURE(decode, f16_plain, DType::kF16, KeyBasis::kPlain)->Apply(decode_cases);
BENCHMARK_CAPTURE(decode, f16_page_relative, DType::kF16, KeyBasis::kPageRelative)->Apply(decode_cases);
BENCHMARK_CAPTURE(prefill, f16, DType::kF16, KeyBasis::kRotated)->Apply(prefill_cases);
BENCHMARK_CAPTURE(prefill, f16_plain, DType::kF16, KeyBasis::kPlain)->Apply(prefill_cases);

}  // namespace
}  // namespace kva

BENCHMARK_MAIN();
