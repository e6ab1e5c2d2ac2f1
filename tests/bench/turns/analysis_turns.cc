// The analysis on vectors of 1,024 numbers, as many as asked for.
#include <memory>
#include <vector>

#include "analyzer/redundancy/all_pairs.h"
#include "analyzer/redundancy/redundancy.h"
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

PageMatrix random_pages(int64_t pages, ThreadPool& pool) {
  std::vector<float> numbers(static_cast<std::size_t>(pages * kNumbers));
  SplitMix64 random(1);
  for (float& number : numbers) number = static_cast<float>(2.0 * random.uniform() - 1.0);
  RawPages raw{{pages, 1, kTokens, kHeadDim}, std::move(numbers), 1.0};
  const std::vector<float> means = channel_means(raw, pool);
  return PageMatrix(std::move(raw), means, 0.25, pool);
}

Grouping one_prompt(int64_t pages) {
  PageSet set;
  set.prompts.push_back({"bench", "bench", pages * kTokens, pages, 0});
  for (int64_t p = 0; p < pages; ++p) set.pages.push_back({0, p * kTokens});
  return group_pages(set);
}

// all_pairs pages=N threads=T: all five metrics with totals, histograms, best partners and groups.
class AllPairsTurn : public Turn {
 public:
  explicit AllPairsTurn(const TurnSettings& s)
      : pool_(static_cast<int>(s.number("threads"))),
        pages_(random_pages(s.number("pages"), pool_)),
        grouping_(one_prompt(s.number("pages"))) {
    plan_.thresholds = thresholds_;
    plan_.partners = 10;
    const auto n = static_cast<double>(s.number("pages"));
    facts = {{"pairs", n * n}, {"flops", n * n * static_cast<double>(kNumbers)}};
  }
  double seconds() override {
    return seconds_of([&] { benchmark::DoNotOptimize(compare_all_pairs(pages_, grouping_, plan_, pool_)); });
  }

 private:
  ThreadPool pool_;
  PageMatrix pages_;
  Grouping grouping_;
  std::vector<float> thresholds_ = {0.8f, 0.9f, 0.95f, 0.99f};
  PairPlan plan_;
};

}  // namespace

std::unique_ptr<Turn> make_analysis_turn(const std::string& operation, const TurnSettings& settings) {
  if (operation == "all_pairs") return std::make_unique<AllPairsTurn>(settings);
  return nullptr;
}

}  // namespace kva
