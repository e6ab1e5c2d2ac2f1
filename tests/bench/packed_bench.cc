// Attention's products over packed pages beside the same over dense f16 pages: 8,192 tokens of 64 numbers in
// pages of 64, three query rows, scores and weighted sums, as many heads as exceed the processor's caches.
// The two take turns, so that both see the same machine: value is the packed pages' GB/s, counted in the f16
// bytes that they stand for, limit the dense pages', share how many times as fast. stored: GB/s of the bytes
// that are really read.
#include <benchmark/benchmark.h>

#include <random>
#include <vector>

#include "kernels/convert.h"
#include "kernels/dense_rows.h"
#include "kernels/packed.h"
#include "tests/bench/probes.h"

namespace kva {
namespace {

constexpr int64_t kTokens = 8192;
constexpr int64_t kPage = 64;
constexpr int64_t kWidth = 64;
constexpr int64_t kQueries = 3;
constexpr int64_t kPages = kTokens / kPage;
constexpr int64_t kDenseBytes = kPage * kWidth * 2;

// `heads` heads' pages one after the other, all with the same random numbers.
struct Heads {
  Heads(int bits, ScaleAxis axis, int64_t group, int64_t heads_, bool by_channel)
      : heads(heads_),
        shape{.bits = bits,
              .tokens = kPage,
              .width = kWidth,
              .axis = axis,
              .group = group,
              .by_channel = by_channel} {
    std::mt19937 random(1);
    std::normal_distribution<float> normal;
    queries.resize(static_cast<std::size_t>(kQueries * kWidth));
    for (float& value : queries) value = normal(random);
    weights.assign(static_cast<std::size_t>(kQueries * kPage), 0.01f);
    scores.resize(weights.size());
    out.resize(queries.size());
    scratch.resize(static_cast<std::size_t>(packed_scratch(kQueries, shape)));
    scales = shape.scale_count();
    page_bytes = 4 * scales + kPage * packed_row_bytes(bits, kWidth);
    dense.resize(static_cast<std::size_t>(heads * kPages * kPage * kWidth));
    for (uint16_t& value : dense) value = static_cast<uint16_t>(0x3000 + random() % 0x800);
    packed.resize(static_cast<std::size_t>(heads * kPages * page_bytes));
    for (int64_t page = 0; page < heads * kPages; ++page) {
      std::byte* at = packed.data() + page * page_bytes;
      std::fill_n(reinterpret_cast<uint16_t*>(at), 2 * scales, uint16_t{0x3000});
      for (int64_t i = 4 * scales; i < page_bytes; ++i) at[i] = static_cast<std::byte>(random());
    }
  }

  MatView<const float> query_rows() const { return {queries.data(), kQueries, kWidth}; }
  MatView<const float> weight_rows() const { return {weights.data(), kQueries, kPage}; }
  MatView<float> score_rows() { return {scores.data(), kQueries, kPage}; }
  MatView<float> out_rows() { return {out.data(), kQueries, kWidth}; }

  template <bool kScores>
  void read_packed() {
    for (int64_t i = 0; i < heads * kPages; ++i) {
      const std::byte* at = packed.data() + i * page_bytes;
      PackedPage page = shape;
      page.scales = reinterpret_cast<const uint16_t*>(at);
      page.zeros = page.scales + scales;
      page.codes = at + 4 * scales;
      if (kScores)
        packed_scores(query_rows(), page, scratch.data(), score_rows());
      else
        packed_accumulate(weight_rows(), page, scratch.data(), out_rows());
    }
  }

  template <bool kScores>
  void read_dense() {
    for (int64_t i = 0; i < heads * kPages; ++i) {
      const uint16_t* at = dense.data() + i * kPage * kWidth;
      if (kScores)
        dense_scores(query_rows(), at, DType::kF16, score_rows());
      else
        dense_accumulate(weight_rows(), at, DType::kF16, out_rows());
    }
  }

  int64_t heads;
  PackedPage shape;
  int64_t scales = 0, page_bytes = 0;
  std::vector<float> queries, weights, scores, out, scratch;
  std::vector<uint16_t> dense;
  std::vector<std::byte> packed;
};

template <bool kScores>
void products(benchmark::State& state) {
  const auto axis = state.range(1) ? ScaleAxis::kChannel : ScaleAxis::kToken;
  Heads heads(static_cast<int>(state.range(0)), axis, state.range(2), state.range(3), kScores);
  heads.read_packed<kScores>();
  Turns turns;
  for (auto _ : state) {
    turns.own.push_back(seconds_of([&] { heads.read_packed<kScores>(); }));
    turns.probe.push_back(seconds_of([&] { heads.read_dense<kScores>(); }));
    state.SetIterationTime(turns.own.back());
  }
  const auto pages = static_cast<double>(heads.heads * kPages);
  turns.report(state, pages * kDenseBytes, pages * kDenseBytes, kGiga);
  state.counters["stored"] = pages * static_cast<double>(heads.page_bytes) / median(turns.own) / kGiga;
  benchmark::DoNotOptimize(heads.out.data());
}

// One head lies in the second-level cache once packed; 90 are a small model's.
void cases(benchmark::internal::Benchmark* bench) {
  bench->ArgNames({"bits", "channel", "group", "heads"})->UseManualTime()->Unit(benchmark::kMillisecond);
  for (const int64_t heads : {1, 90})
    for (const int64_t bits : {8, 4, 3, 2}) {
      for (const int64_t channel : {0, 1}) bench->Args({bits, channel, 64, heads});
      bench->Args({bits, 0, 32, heads});
    }
}

BENCHMARK_TEMPLATE(products, true)->Name("scores")->Apply(cases);
BENCHMARK_TEMPLATE(products, false)->Name("accumulate")->Apply(cases);

}  // namespace
}  // namespace kva

BENCHMARK_MAIN();
