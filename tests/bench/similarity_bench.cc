// All pairs of pages beside the plain f32 product of the same size on as many threads, and the packed kernel
// beside a bare popcount. Limits are probed in turns (probes.h).
#include <benchmark/benchmark.h>

#include <algorithm>
#include <vector>

#include "analyzer/redundancy/all_pairs.h"
#include "analyzer/redundancy/redundancy.h"
#include "kernels/similarity.h"
#include "tests/analyzer/redundancy/page_set_builder.h"
#include "tests/bench/probes.h"

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
  PlainGemmProbe probe(kPages, kNumbers, pool);
  probe.seconds();
  Turns turns;
  for (auto _ : state) {
    turns.own.push_back(
        seconds_of([&] { benchmark::DoNotOptimize(compare_all_pairs(pages, grouping, plan, pool)); }));
    turns.probe.push_back(probe.seconds());
    state.SetIterationTime(turns.own.back());
  }
  // Pages squared for both: the plain product computes both triangles, we compute one and mirror it.
  turns.report(state, kPages * kPages, kPages * kPages, 1e6);
}
BENCHMARK(all_pairs_five_metrics)
    ->ArgName("threads")
    ->ArgsProduct({thread_counts()})
    ->Unit(benchmark::kMillisecond)
    ->UseManualTime();

void differing_bits_of_tiles(benchmark::State& state) {
  ThreadPool pool(1);
  const PageMatrix pages = bench_pages(pool);
  std::vector<uint32_t> counts(128 * 256);
  PopcountProbe probe;
  Turns turns;
  for (auto _ : state) {
    turns.own.push_back(seconds_of([&] {
      differing_bits_tile(pages.signs(0), 0, 128, {counts.data(), 128, 256});
      benchmark::DoNotOptimize(counts.data());
    }));
    turns.probe.push_back(probe.seconds());
    state.SetIterationTime(turns.own.back());
  }
  // A pair is a page of signs.
  turns.report(state, 128 * 256, probe.words() / (kNumbers / 64), 1e6);
}
BENCHMARK(differing_bits_of_tiles)->UseManualTime();

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
