// The analysis on vectors of 1,024 uniform random numbers, as many as asked for.
#include <algorithm>
#include <functional>
#include <memory>
#include <vector>

#include "analyzer/redundancy/all_pairs.h"
#include "analyzer/redundancy/clusters.h"
#include "analyzer/redundancy/cover.h"
#include "compressors/subspace.h"
#include "runtime/error.h"
#include "tests/bench/probes.h"
#include "tests/bench/random_pages.h"
#include "tests/bench/turns/turn.h"

namespace kva {
namespace {

// What all analyses of pages have in common: pages=N threads=T.
class PagesTurn : public Turn {
 public:
  explicit PagesTurn(const TurnSettings& s)
      : pool_(static_cast<int>(s.number("threads"))),
        pages_(random_pages_in(parse_dtype(s.text_or("dtype", "f32")).value_or(DType::kF32),
                               s.number("pages"), pool_)) {
    const auto n = static_cast<double>(s.number("pages"));
    facts["pairs"] = n * n;
    facts["flops"] = n * n * static_cast<double>(kNumbers);  // of one triangle
  }

 protected:
  ThreadPool pool_;
  PageMatrix pages_;
};

// all_pairs metric=all|cosine|hamming|jaccard dtype=f32|bf16: totals, histograms, and for cosines the ten
// best partners. Each pair is compared once.
class AllPairsTurn : public PagesTurn {
 public:
  explicit AllPairsTurn(const TurnSettings& s) : PagesTurn(s), grouping_(one_prompt(s.number("pages"))) {
    const std::string metric = s.text_or("metric", "all");
    plan_.thresholds = thresholds_;
    plan_.partners = 10;
    if (metric != "all") {
      plan_.metrics = {metric_named(metric)};
      plan_.prompts = false;
      if (metric != "cosine") plan_.partners = 0;
    }
    facts["words"] = facts["pairs"] / 2.0 * static_cast<double>(bit_words(kNumbers));
  }
  double seconds() override {
    return seconds_of([&] { benchmark::DoNotOptimize(compare_all_pairs(pages_, grouping_, plan_, pool_)); });
  }

 private:
  static Metric metric_named(const std::string& name) {
    if (name == "cosine") return Metric::kCosineCentered;
    if (name == "hamming") return Metric::kHamming;
    if (name == "jaccard") return Metric::kJaccard;
    throw InputError("metric: expected all, cosine, hamming or jaccard, found " + name);
  }

  Grouping grouping_;
  std::vector<float> thresholds_ = {0.8f, 0.9f, 0.95f, 0.99f};
  PairPlan plan_;
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
    const double time = seconds_of([&] { clusters = cluster_pages(pages_, options_, pool_); });
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
  if (operation == "cover") return std::make_unique<CoverTurn>(settings);
  if (operation == "kmeans") return std::make_unique<KMeansTurn>(settings);
  if (operation == "svd") return std::make_unique<SvdTurn>(settings);
  if (operation == "page_svds") return std::make_unique<PageSvdsTurn>(settings);
  return nullptr;
}

}  // namespace kva
