// All pairs of pages beside the plain f32 product of the same size on as many threads, packed bits beside a
// bare popcount, and clusters beside FAISS. Limits are probed in turns (probes.h).
#include <benchmark/benchmark.h>
#include <cblas.h>
#include <faiss/Clustering.h>
#include <faiss/IndexFlat.h>
#include <omp.h>

#include <algorithm>
#include <initializer_list>
#include <vector>

#include "analyzer/redundancy/all_pairs.h"
#include "analyzer/redundancy/clusters.h"
#include "analyzer/redundancy/redundancy.h"
#include "kernels/similarity.h"
#include "tests/analyzer/redundancy/page_set_builder.h"
#include "tests/bench/probes.h"
#include "tests/bench/random_pages.h"

namespace kva {
namespace {

constexpr int64_t kFewPages = 4096;
const std::vector<float> kThresholds = {0.8f, 0.9f, 0.95f, 0.99f};

// All five metrics with totals, histograms, best partners and groups.
PairPlan full_plan() {
  PairPlan plan;
  plan.thresholds = kThresholds;
  plan.partners = 4;
  plan.heat_bins = kMaxHeatmapBins;
  return plan;
}

// One metric with its histogram; with `partners` also the most similar pages of each.
PairPlan bare_plan(Metric metric, int partners) {
  PairPlan plan;
  plan.thresholds = kThresholds;
  plan.metrics = {metric};
  plan.partners = partners;
  plan.prompts = false;
  return plan;
}

// In turns with the whole product of the same size, which computes both triangles; we compute one.
void all_pairs(benchmark::State& state, const PairPlan& plan) {
  const int64_t count = state.range(0);
  ThreadPool pool(static_cast<int>(state.range(1)));
  const PageMatrix pages = random_pages(count, pool);
  const Grouping grouping = one_prompt(count);
  PlainGemmProbe probe(count, kNumbers, pool);
  probe.seconds();
  Turns turns;
  for (auto _ : state) {
    turns.own.push_back(
        seconds_of([&] { benchmark::DoNotOptimize(compare_all_pairs(pages, grouping, plan, pool)); }));
    turns.probe.push_back(probe.seconds());
    state.SetIterationTime(turns.own.back());
  }
  const auto pairs = static_cast<double>(count * count);
  turns.report(state, pairs, pairs, 1e6);
}

// Products of bf16 numbers, in turns with the same of f32; error: of a centred cosine, at most.
void all_pairs_in_bf16(benchmark::State& state, const PairPlan& plan) {
  const int64_t count = state.range(0);
  ThreadPool pool(static_cast<int>(state.range(1)));
  const PageMatrix pages = random_pages(count, pool);
  const PageMatrix rounded = random_pages_in(DType::kBF16, count, pool);
  if (!rounded.rounds_products()) return state.SkipWithError("this processor does not multiply bf16");
  const Grouping grouping = one_prompt(count);
  Turns turns;
  for (auto _ : state) {
    turns.own.push_back(
        seconds_of([&] { benchmark::DoNotOptimize(compare_all_pairs(rounded, grouping, plan, pool)); }));
    turns.probe.push_back(
        seconds_of([&] { benchmark::DoNotOptimize(compare_all_pairs(pages, grouping, plan, pool)); }));
    state.SetIterationTime(turns.own.back());
  }
  const auto pairs = static_cast<double>(count * count);
  turns.report(state, pairs, pairs, 1e6);
  state.counters["error"] = rounded.product_error().centred;
}

// In turns with a bare popcount of as many words from the first-level cache on each thread; pairs count
// twice, as above.
void all_pairs_of_bits(benchmark::State& state, Metric metric) {
  const int64_t count = state.range(0);
  ThreadPool pool(static_cast<int>(state.range(1)));
  const PageMatrix pages = random_pages(count, pool);
  const Grouping grouping = one_prompt(count);
  const PairPlan plan = bare_plan(metric, 0);
  std::vector<PopcountProbe> probes(static_cast<std::size_t>(pool.threads()));
  constexpr int64_t kCalls = 64;
  Turns turns;
  for (auto _ : state) {
    turns.own.push_back(
        seconds_of([&] { benchmark::DoNotOptimize(compare_all_pairs(pages, grouping, plan, pool)); }));
    turns.probe.push_back(seconds_of([&] {
      pool.parallel_for(pool.threads(), [&](int64_t thread, int) {
        for (int64_t turn = 0; turn < kCalls; ++turn) probes[static_cast<std::size_t>(thread)].seconds();
      });
    }));
    state.SetIterationTime(turns.own.back());
  }
  const double words = probes[0].words() * PopcountProbe::kTurns * kCalls * pool.threads();
  turns.report(state, static_cast<double>(count * count), words / (kNumbers / 64), 1e6);
}

void register_pairs() {
  const auto add = [](const char* name, const auto& body, const auto& what,
                      std::initializer_list<int64_t> counts) {
    auto* bench = benchmark::RegisterBenchmark(name, body, what)
                      ->ArgNames({"pages", "threads"})
                      ->Unit(benchmark::kMillisecond)
                      ->UseManualTime();
    for (const int64_t count : counts)
      for (const int64_t threads : thread_counts()) bench->Args({count, threads});
  };
  add("all_pairs_five_metrics", all_pairs, full_plan(), {kFewPages});
  add("all_pairs_cosine", all_pairs, bare_plan(Metric::kCosineCentered, 10), {kFewPages, 16384});
  add("all_pairs_bf16", all_pairs_in_bf16, bare_plan(Metric::kCosineCentered, 10), {kFewPages, 16384});
  add("all_pairs_hamming", all_pairs_of_bits, Metric::kHamming, {kFewPages, 16384});
  add("all_pairs_jaccard", all_pairs_of_bits, Metric::kJaccard, {kFewPages, 16384});
}

// k-means by FAISS with our own assignment, in turns with FAISS's IndexFlatL2: same start, same iterations.
// inertia: ours over FAISS's.
void kmeans(benchmark::State& state) {
  const int64_t count = state.range(0);
  const int threads = static_cast<int>(state.range(2));
  ThreadPool pool(threads);
  const PageMatrix pages = random_pages(count, pool);
  const ClusterOptions options{.k = state.range(1), .iterations = 20, .seed = 1};
  const MatView<const float> points = pages.centred();
  omp_set_num_threads(threads);
  Turns turns;
  double inertia = 0.0, faiss_inertia = 0.0;
  for (auto _ : state) {
    turns.own.push_back(seconds_of([&] { inertia = cluster_pages(pages, options, pool).inertia; }));
    openblas_set_num_threads(threads);
    turns.probe.push_back(seconds_of([&] {
      faiss::ClusteringParameters parameters;
      parameters.niter = options.iterations;
      parameters.seed = static_cast<int>(options.seed);
      parameters.max_points_per_centroid = static_cast<int>(count);
      faiss::Clustering clustering(static_cast<int>(points.cols), static_cast<int>(options.k), parameters);
      faiss::IndexFlatL2 index(points.cols);
      clustering.train(points.rows, points.data, index);
      faiss_inertia = clustering.iteration_stats.back().obj;
    }));
    openblas_set_num_threads(1);
    state.SetIterationTime(turns.own.back());
  }
  const double flops = 2.0 * static_cast<double>(count * options.k * kNumbers) * options.iterations;
  turns.report(state, flops, flops, kGiga);
  state.counters["inertia"] = inertia / faiss_inertia;
}
BENCHMARK(kmeans)
    ->ArgNames({"pages", "clusters", "threads"})
    ->ArgsProduct({{16384}, {256}, thread_counts()})
    ->Unit(benchmark::kMillisecond)
    ->UseManualTime();

void differing_bits_of_tiles(benchmark::State& state) {
  ThreadPool pool(1);
  const PageMatrix pages = random_pages(kFewPages, pool);
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

// As many pages as an analysis may meet, one metric. estimate: the seconds that were expected over those it
// took.
void many_pages(benchmark::State& state) {
  const int64_t count = state.range(0);
  ThreadPool pool(static_cast<int>(state.range(1)));
  const PageMatrix pages = random_pages_in(state.range(2) ? DType::kBF16 : DType::kF32, count, pool);
  const Grouping grouping = one_prompt(count);
  const PairPlan plan = bare_plan(Metric::kCosineCentered, 10);
  double expected = 0.0, seconds = 0.0;
  for (auto _ : state) {
    expected = estimated_seconds(pages, grouping, plan, pool);
    seconds = seconds_of([&] { benchmark::DoNotOptimize(compare_all_pairs(pages, grouping, plan, pool)); });
    state.SetIterationTime(seconds);
  }
  state.counters["value"] = static_cast<double>(count * count) / seconds / 1e6;
  state.counters["estimate"] = expected / seconds;
}
BENCHMARK(many_pages)
    ->ArgNames({"pages", "threads", "bf16"})
    ->ArgsProduct({{10000, 40000, 100000}, {2}, {0, 1}})
    ->Unit(benchmark::kSecond)
    ->UseManualTime()
    ->Iterations(1);

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
  const std::vector<float> numbers = uniform_numbers(704 * 3 * kNumbers);
  const PageSet set =
      build_page_set(spec, [&](int layer, Side, int64_t page, int64_t head, int64_t token, int64_t channel) {
        const int64_t at = ((page * 3 + head) * kTokens + token) * kHeadDim + channel;
        return numbers[static_cast<std::size_t>((at + layer * 977) % static_cast<int64_t>(numbers.size()))];
      });
  ThreadPool pool(2);
  double expected = 0.0, seconds = 0.0;
  for (auto _ : state)
    seconds += seconds_of([&] {
      benchmark::DoNotOptimize(analyze_redundancy(set, {}, pool, {}, [&](double s) { expected += s; }));
    });
  state.counters["estimate"] = expected / seconds;
}
BENCHMARK(whole_analysis)->Arg(2)->Arg(30)->Unit(benchmark::kMillisecond)->UseRealTime()->Iterations(1);

}  // namespace
}  // namespace kva

int main(int argc, char** argv) {
  kva::register_pairs();
  benchmark::Initialize(&argc, argv);
  if (benchmark::ReportUnrecognizedArguments(argc, argv)) return 1;
  benchmark::RunSpecifiedBenchmarks();
  return 0;
}
