// The analysis on vectors of 1,024 uniform random numbers, as many as asked for.
#include <algorithm>
#include <functional>
#include <memory>
#include <vector>

#include "analyzer/redundancy/all_pairs.h"
#include "analyzer/redundancy/clusters.h"
#include "analyzer/redundancy/cover.h"
#include "analyzer/redundancy/redundancy.h"
#include "compressors/subspace.h"
#include "kernels/random.h"
#include "runtime/error.h"
#include "tests/analyzer/redundancy/page_set_builder.h"
#include "tests/bench/probes.h"
#include "tests/bench/turns/turn.h"

namespace kva {
namespace {

constexpr int kTokens = 16;
constexpr int kHeadDim = 64;
constexpr int64_t kNumbers = kTokens * kHeadDim;

std::vector<float> uniform_numbers(int64_t count) {
  std::vector<float> numbers(static_cast<std::size_t>(count));
  SplitMix64 random(1);
  for (float& number : numbers) number = static_cast<float>(2.0 * random.uniform() - 1.0);
  return numbers;
}

PageMatrix random_pages(int64_t pages, ThreadPool& pool) {
  RawPages raw{{pages, 1, kTokens, kHeadDim}, uniform_numbers(pages * kNumbers), 1.0};
  const std::vector<float> means = channel_means(raw, pool);
  return PageMatrix(std::move(raw), means, 0.25, pool);
}

Grouping one_prompt(int64_t pages) {
  PageSet set;
  set.prompts.push_back({"bench", "bench", pages * kTokens, pages, 0});
  for (int64_t p = 0; p < pages; ++p) set.pages.push_back({0, p * kTokens});
  return group_pages(set);
}

// What all analyses of pages have in common: pages=N threads=T.
class PagesTurn : public Turn {
 public:
  explicit PagesTurn(const TurnSettings& s)
      : pool_(static_cast<int>(s.number("threads"))), pages_(random_pages(s.number("pages"), pool_)) {
    const auto n = static_cast<double>(s.number("pages"));
    facts["pairs"] = n * n;
    facts["flops"] = n * n * static_cast<double>(kNumbers);  // of one triangle
  }

 protected:
  ThreadPool pool_;
  PageMatrix pages_;
};

// all_pairs: all five metrics with totals, histograms, ten best partners and groups.
class AllPairsTurn : public PagesTurn {
 public:
  explicit AllPairsTurn(const TurnSettings& s) : PagesTurn(s), grouping_(one_prompt(s.number("pages"))) {
    plan_.thresholds = thresholds_;
    plan_.partners = 10;
  }
  double seconds() override {
    return seconds_of([&] { benchmark::DoNotOptimize(compare_all_pairs(pages_, grouping_, plan_, pool_)); });
  }

 private:
  Grouping grouping_;
  std::vector<float> thresholds_ = {0.8f, 0.9f, 0.95f, 0.99f};
  PairPlan plan_;
};

// hamming, jaccard histogram=0|1: every pair's bits counted once, tile by tile; with 1 also made similarities
// and put into a histogram.
class BitsTurn : public PagesTurn {
 public:
  BitsTurn(bool hamming, const TurnSettings& s)
      : PagesTurn(s), hamming_(hamming), histogram_(s.number("histogram") != 0) {
    const int64_t n = pages_.shape().pages;
    for (int64_t row = 0; row < n; row += kRows)
      for (int64_t column = row / kColumns * kColumns; column < n; column += kColumns)
        tiles_.push_back({row, column});
    facts["words"] = static_cast<double>(n * n / 2 * bit_words(kNumbers));
  }
  double seconds() override {
    return seconds_of([&] {
      std::vector<Worker> workers(static_cast<std::size_t>(pool_.threads()));
      pool_.parallel_for(static_cast<int64_t>(tiles_.size()), [&](int64_t index, int worker) {
        add(tiles_[static_cast<std::size_t>(index)], workers[static_cast<std::size_t>(worker)]);
      });
      benchmark::DoNotOptimize(workers.data());
    });
  }

 private:
  static constexpr int64_t kRows = 128, kColumns = 256;
  struct Tile {
    int64_t row, column;
  };
  struct Worker {
    std::vector<uint32_t> counts = std::vector<uint32_t>(kRows * kColumns);
    std::vector<float> values = std::vector<float>(kColumns);
    std::vector<int64_t> histogram = std::vector<int64_t>(kHistogramBins);
    ValueTotals totals;
  };

  void add(const Tile& tile, Worker& worker) const {
    const int64_t n = pages_.shape().pages;
    const int64_t rows = std::min(kRows, n - tile.row), columns = std::min(kColumns, n - tile.column);
    const MatView<uint32_t> counts(worker.counts.data(), rows, columns);
    if (hamming_)
      differing_bits_tile(pages_.signs(0), tile.row, tile.column, counts);
    else
      common_bits_tile(pages_.top(0), tile.row, tile.column, counts);
    if (!histogram_) return;
    for (int64_t r = 0; r < rows; ++r) {
      const int64_t skip = std::clamp<int64_t>(tile.row + r + 1 - tile.column, 0, columns);
      const int64_t count = columns - skip;
      if (hamming_)
        hamming_row(counts.row(r) + skip, count, kNumbers, worker.values.data());
      else
        jaccard_row(counts.row(r) + skip, count, pages_.top_size(0), worker.values.data());
      add_values(worker.values.data(), count, {0.0f, {}}, worker.totals, worker.histogram.data(), nullptr);
    }
  }

  bool hamming_, histogram_;
  std::vector<Tile> tiles_;
};

// cover: leader clustering at 0.9, which finds what nearly repeats.
class CoverTurn : public PagesTurn {
 public:
  using PagesTurn::PagesTurn;
  double seconds() override {
    const float threshold = 0.9f;
    return seconds_of([&] { benchmark::DoNotOptimize(cover_pages(pages_, 0, {&threshold, 1})); });
  }
};

// kmeans k=K iterations=I.
class KMeansTurn : public PagesTurn {
 public:
  explicit KMeansTurn(const TurnSettings& s)
      : PagesTurn(s), options_{s.number("k"), static_cast<int>(s.number("iterations")), 1} {}
  double seconds() override {
    Clusters clusters;
    const double time = seconds_of(
        [&] { pool_.parallel_for(1, [&](int64_t, int) { clusters = cluster_pages(pages_, options_); }); });
    found["inertia"] = clusters.inertia;
    return time;
  }

 private:
  ClusterOptions options_;
};

// svd rows=N rank=R threads=T: the leading R directions of [N, 1024] numbers.
class SvdTurn : public Turn {
 public:
  explicit SvdTurn(const TurnSettings& s)
      : pool_(static_cast<int>(s.number("threads"))),
        rows_(s.number("rows")),
        rank_(s.number("rank")),
        numbers_(uniform_numbers(rows_ * kNumbers)) {}
  double seconds() override {
    Subspace subspace;
    const double time = seconds_of([&] {
      subspace = randomized_subspace(MatView<const float>(numbers_.data(), rows_, kNumbers), {rank_, 0.0}, 1);
    });
    found["energy"] = subspace.energy;
    return time;
  }

 private:
  ThreadPool pool_;
  int64_t rows_, rank_;
  std::vector<float> numbers_;
};

// page_svds pages=N threads=T: all directions of N pages of 256 x 64 numbers.
class PageSvdsTurn : public Turn {
 public:
  explicit PageSvdsTurn(const TurnSettings& s)
      : pool_(static_cast<int>(s.number("threads"))),
        pages_(s.number("pages")),
        numbers_(uniform_numbers(pages_ * kPageRows * kHeadDim)) {
    facts["pages"] = static_cast<double>(pages_);
  }
  double seconds() override {
    return seconds_of([&] {
      pool_.parallel_for(pages_, [&](int64_t page, int) {
        const MatView<const float> rows(numbers_.data() + page * kPageRows * kHeadDim, kPageRows, kHeadDim);
        benchmark::DoNotOptimize(exact_subspace(rows, {kHeadDim, 0.0}));
      });
    });
  }

 private:
  static constexpr int64_t kPageRows = 256;
  ThreadPool pool_;
  int64_t pages_;
  std::vector<float> numbers_;
};

}  // namespace

std::unique_ptr<Turn> make_analysis_turn(const std::string& operation, const TurnSettings& settings) {
  if (operation == "all_pairs") return std::make_unique<AllPairsTurn>(settings);
  if (operation == "hamming" || operation == "jaccard")
    return std::make_unique<BitsTurn>(operation == "hamming", settings);
  if (operation == "cover") return std::make_unique<CoverTurn>(settings);
  if (operation == "kmeans") return std::make_unique<KMeansTurn>(settings);
  if (operation == "svd") return std::make_unique<SvdTurn>(settings);
  if (operation == "page_svds") return std::make_unique<PageSvdsTurn>(settings);
  return nullptr;
}

}  // namespace kva
