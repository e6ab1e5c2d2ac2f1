// Subspaces of rows: the randomized one of 4,096 x 1,024 numbers (a signal of rank 64 and noise) beside the
// bare f32 products that its steps are made of; the exact ones of 256 page sides of 256 x 64, one a work
// item, beside LAPACK's thin gesdd of the same in f32. In turns (probes.h). error: of the randomized one,
// over the least that its rank allows.
#include <benchmark/benchmark.h>
#include <lapacke.h>

#include <algorithm>
#include <cmath>
#include <vector>

#include "compressors/subspace.h"
#include "kernels/parallel.h"
#include "kernels/tile_product.h"
#include "tests/bench/probes.h"
#include "tests/compressors/random_sample.h"

namespace kva {
namespace {

constexpr int64_t kRows = 4096;
constexpr int64_t kCols = 1024;
constexpr int64_t kSignal = 64;
constexpr int64_t kPages = 256;
constexpr int64_t kPageRows = 256;
constexpr int64_t kPageCols = 64;

std::vector<float> signal_and_noise() {
  const std::vector<float> left = normal_numbers(kRows * kSignal, 1);
  const std::vector<float> right = normal_numbers(kSignal * kCols, 2);
  std::vector<float> numbers = normal_numbers(kRows * kCols, 3);
  for (float& number : numbers) number *= 0.1f;
  tile_product_add({left.data(), kRows, kSignal}, {right.data(), kSignal, kCols},
                   {numbers.data(), kRows, kCols});
  return numbers;
}

void randomized(benchmark::State& state) {
  const int64_t rank = state.range(0);
  const std::vector<float> numbers = signal_and_noise();
  const MatView<const float> rows(numbers.data(), kRows, kCols);
  const int64_t directions = rank + kSubspaceOversampling;
  const std::vector<float> left = normal_numbers(directions * kRows, 4);
  std::vector<float> out(static_cast<std::size_t>(directions * kCols));
  // Two products a power iteration, one before and one after them.
  constexpr int64_t kProducts = 2 * kSubspacePowerIterations + 2;
  Turns turns;
  double energy = 0.0;
  ThreadPool pool(1);
  for (auto _ : state) {
    // On a worker, where no library starts threads of its own.
    pool.parallel_for(2, [&](int64_t turn, int) {
      if (turn == 0) {
        turns.own.push_back(
            seconds_of([&] { energy = randomized_subspace(rows, {.rank = rank}, 1).energy; }));
        return;
      }
      turns.probe.push_back(seconds_of([&] {
        for (int64_t i = 0; i < kProducts; ++i)
          tile_product_add({left.data(), directions, kRows}, rows, {out.data(), directions, kCols});
      }));
    });
    state.SetIterationTime(turns.own.back());
  }
  const double flops = 2.0 * static_cast<double>(kProducts * directions * kRows * kCols);
  turns.report(state, flops, flops, kGiga);
  const double least = 1.0 - exact_subspace(rows, {.rank = rank}).energy;
  state.counters["error"] = std::sqrt((1.0 - energy) / least);
}
BENCHMARK(randomized)->ArgName("rank")->Arg(32)->Arg(64)->Unit(benchmark::kMillisecond)->UseManualTime();

void pages(benchmark::State& state) {
  ThreadPool pool(static_cast<int>(state.range(0)));
  const std::vector<float> numbers = normal_numbers(kPages * kPageRows * kPageCols, 5);
  constexpr int64_t kPage = kPageRows * kPageCols;
  Turns turns;
  for (auto _ : state) {
    turns.own.push_back(seconds_of([&] {
      pool.parallel_for(kPages, [&](int64_t page, int) {
        benchmark::DoNotOptimize(
            exact_subspace({numbers.data() + page * kPage, kPageRows, kPageCols}, {.rank = kPageCols / 2}));
      });
    }));
    turns.probe.push_back(seconds_of([&] {
      pool.parallel_for(kPages, [&](int64_t page, int) {
        // Rows of ours are columns of LAPACK's.
        std::vector<float> copy(numbers.begin() + page * kPage, numbers.begin() + (page + 1) * kPage);
        std::vector<float> values(kPageCols), u(kPageCols * kPageCols), v(kPage);
        LAPACKE_sgesdd(LAPACK_COL_MAJOR, 'S', kPageCols, kPageRows, copy.data(), kPageCols, values.data(),
                       u.data(), kPageCols, v.data(), kPageCols);
        benchmark::DoNotOptimize(u.data());
      });
    }));
    state.SetIterationTime(turns.own.back());
  }
  turns.report(state, kPages, kPages, 1.0);
}
BENCHMARK(pages)
    ->ArgName("threads")
    ->ArgsProduct({thread_counts()})
    ->Unit(benchmark::kMillisecond)
    ->UseManualTime();

}  // namespace
}  // namespace kva

BENCHMARK_MAIN();
