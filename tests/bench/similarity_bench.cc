// All pairs of pages beside the plain f32 product of the same size, which is their limit, and the packed
// kernels beside a popcount in registers. One thread each.
#include <benchmark/benchmark.h>

#include <algorithm>
#include <vector>

#include "analyzer/redundancy/all_pairs.h"
#include "analyzer/redundancy/redundancy.h"
#include "kernels/similarity.h"
#include "tests/analyzer/redundancy/page_set_builder.h"

namespace kva {
namespace {

constexpr int64_t kPages = 4096;
constexpr int kTokens = 16;
constexpr int kHeadDim = 64;
constexpr int64_t kNumbers = kTokens * kHeadDim;

std::vector<float> random_numbers(int64_t count) {
  std::vector<float> numbers;
  SeededRandom random(1, 1);
  for (int64_t k = 0; k < count; ++k)
    numbers.push_back(static_cast<float>(random.next() >> 40) / 8388608.0f - 1.0f);
  return numbers;
}

PageMatrix bench_pages(ThreadPool& pool) {
  RawPages raw{{kPages, 1, kTokens, kHeadDim}, random_numbers(kPages * kNumbers), 1.0};
  const std::vector<float> means = channel_means(raw, pool);
  return PageMatrix(std::move(raw), means, 0.25, pool);
}

Grouping one_prompt() {
  PageSet set;
  set.prompts.push_back({"bench", "bench", kPages * kTokens, kPages, 0});
  for (int64_t p = 0; p < kPages; ++p) set.pages.push_back({0, p * kTokens});
  return group_pages(set);
}

// The whole N x N product by one call, as somebody would write it who does not stream.
void plain_product(benchmark::State& state) {
  ThreadPool pool(1);
  const std::vector<float> numbers = random_numbers(kPages * kNumbers);
  std::vector<float> out(static_cast<std::size_t>(kPages * kPages));
  const MatView<const float> pages(numbers.data(), kPages, kNumbers);
  for (auto _ : state) {
    pool.parallel_for(1, [&](int64_t, int) { dot_tile(pages, pages, {out.data(), kPages, kPages}); });
    benchmark::DoNotOptimize(out.data());
  }
  state.counters["pairs/s"] =
      benchmark::Counter(static_cast<double>(kPages * kPages), benchmark::Counter::kIsIterationInvariantRate);
}
BENCHMARK(plain_product)->Unit(benchmark::kMillisecond)->UseRealTime();

// All five metrics with totals, histograms, best partners and groups.
void all_pairs_five_metrics(benchmark::State& state) {
  ThreadPool pool(static_cast<int>(state.range(0)));
  const PageMatrix pages = bench_pages(pool);
  const Grouping grouping = one_prompt();
  const std::vector<float> thresholds = {0.8f, 0.9f, 0.95f, 0.99f};
  PairPlan plan;
  plan.thresholds = thresholds;
  plan.partners = 4;
  plan.heat_bins = kMaxHeatmapBins;
  for (auto _ : state) benchmark::DoNotOptimize(compare_all_pairs(pages, grouping, plan, pool));
  // Each pair once; the plain product computes both triangles.
  state.counters["pairs/s"] =
      benchmark::Counter(static_cast<double>(kPages * kPages), benchmark::Counter::kIsIterationInvariantRate);
}
BENCHMARK(all_pairs_five_metrics)->Arg(1)->Arg(2)->Unit(benchmark::kMillisecond)->UseRealTime();

void differing_bits_of_tiles(benchmark::State& state) {
  ThreadPool pool(1);
  const PageMatrix pages = bench_pages(pool);
  std::vector<uint32_t> counts(128 * 256);
  for (auto _ : state) {
    differing_bits_tile(pages.signs(0), 0, 128, {counts.data(), 128, 256});
    benchmark::DoNotOptimize(counts.data());
  }
  state.counters["pairs/s"] = benchmark::Counter(128 * 256, benchmark::Counter::kIsIterationInvariantRate);
}
BENCHMARK(differing_bits_of_tiles)->UseRealTime();

// The default run's shape without the model: 30 layers, 3 KV heads of 64, 16 tokens, 700 pages.
void whole_analysis(benchmark::State& state) {
  PageSetSpec spec;
  spec.layers = static_cast<int>(state.range(0));
  spec.kv_heads = 3;
  spec.head_dim = kHeadDim;
  spec.page_tokens = kTokens;
  spec.dtype = DType::kF16;
  spec.rope = true;
  spec.sets = {std::vector<int64_t>(8, 29), std::vector<int64_t>(8, 29), std::vector<int64_t>(8, 30)};
  const std::vector<float> numbers = random_numbers(704 * 3 * kNumbers);
  const PageSet set =
      build_page_set(spec, [&](int layer, Side, int64_t page, int64_t head, int64_t token, int64_t channel) {
        const int64_t at = ((page * 3 + head) * kTokens + token) * kHeadDim + channel;
        return numbers[static_cast<std::size_t>((at + layer * 977) % static_cast<int64_t>(numbers.size()))];
      });
  ThreadPool pool(2);
  for (auto _ : state) benchmark::DoNotOptimize(analyze_redundancy(set, {}, pool));
}
BENCHMARK(whole_analysis)->Arg(2)->Arg(30)->Unit(benchmark::kMillisecond)->UseRealTime()->Iterations(1);

}  // namespace
}  // namespace kva

BENCHMARK_MAIN();
