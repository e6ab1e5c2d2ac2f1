// Attention over a paged cache of SmolLM2-135M's shape (3 KV heads, 3 queries each, 64 numbers), one layer.
// Decoding is bound by reading K and V: GB/s beside the read bandwidth of as many threads. Prefill is bound
// by products: GFLOP/s of the causal half beside the f32 product peak. Limits are probed in turns (probes.h).
#include <benchmark/benchmark.h>

#include <algorithm>

#include "tests/bench/filled_cache.h"
#include "tests/bench/probes.h"

namespace kva {
namespace {

constexpr int64_t kNumbers =
    int64_t{FilledCache::kKvHeads} * FilledCache::kHeadDim * 2;  // of a token in a layer

void decode(benchmark::State& state, DType type, KeyBasis basis) {
  const int64_t tokens = state.range(0);
  ThreadPool pool(static_cast<int>(state.range(2)));
  // About 256 MiB in all: beyond L2, whatever the context.
  const int64_t layer_bytes = tokens * kNumbers * dtype_bytes(type);
  const int layers = static_cast<int>(std::clamp<int64_t>((256 << 20) / layer_bytes, 1, 512));
  FilledCache filled(FilledCache::options(type, layers, static_cast<int>(state.range(1)), basis), pool);
  filled.fill(tokens - 1);
  const Batch batch = filled.append(1);
  ReadProbe probe(layers * layer_bytes);
  filled.attend(batch);
  Turns turns;
  for (auto _ : state) {
    turns.own.push_back(seconds_of([&] { filled.attend(batch); }));
    turns.probe.push_back(probe.seconds(pool));
    state.SetIterationTime(turns.own.back());
  }
  turns.report(state, static_cast<double>(layers * layer_bytes), probe.bytes(), kGiga);
}

void prefill(benchmark::State& state, DType type, KeyBasis basis) {
  const int64_t tokens = state.range(0);
  const int64_t chunk = 256;
  ThreadPool pool(static_cast<int>(state.range(1)));
  FilledCache filled(FilledCache::options(type, 1, 16, basis), pool);
  filled.fill(tokens - chunk);
  const Batch batch = filled.append(chunk);
  ProductProbe probe(DType::kF32, pool);
  filled.attend(batch);
  probe.seconds();
  Turns turns;
  for (auto _ : state) {
    turns.own.push_back(seconds_of([&] { filled.attend(batch); }));
    turns.probe.push_back(probe.seconds());
    state.SetIterationTime(turns.own.back());
  }
  const double pairs = static_cast<double>(chunk * (tokens - chunk) + chunk * (chunk + 1) / 2);
  const double flops = pairs * 4 * FilledCache::kHeadDim * FilledCache::kKvHeads * FilledCache::kGroup;
  turns.report(state, flops, probe.flops(), kGiga);
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
