#include "analyzer/redundancy/pair_list.h"

#include <algorithm>

#include "analyzer/redundancy/pair_statistics.h"
#include "kernels/check.h"

namespace kva {
namespace {

float hamming_of(const PageMatrix& x, int64_t i, const PageMatrix& y, int64_t j, int head) {
  uint32_t differing = 0;
  for (int h = 0; h < static_cast<int>(x.shape().heads); ++h)
    if (head == kJoinedHeads || head == h) differing += differing_bits(x.signs(h), i, y.signs(h), j);
  return hamming_similarity(differing, static_cast<uint32_t>(x.scope_values(head)));
}

}  // namespace

PairList::PairList(const PageMatrix& x, const PageMatrix& y, std::span<const int64_t> partners, int head,
                   ThreadPool& pool) {
  KVA_CHECK(x.shape().pages == static_cast<int64_t>(partners.size()), "one partner a page");
  for (auto& values : values_) values.resize(partners.size());
  const auto value = [&](Metric metric, int64_t i) -> float& {
    return values_[static_cast<std::size_t>(metric)][static_cast<std::size_t>(i)];
  };
  constexpr int64_t kBlockPairs = 32;
  const int64_t pairs = static_cast<int64_t>(partners.size());
  pool.parallel_for((pairs + kBlockPairs - 1) / kBlockPairs, [&](int64_t block, int) {
    for (int64_t i = block * kBlockPairs; i < std::min(pairs, (block + 1) * kBlockPairs); ++i) {
      const int64_t j = partners[static_cast<std::size_t>(i)];
      if (j < 0) continue;
      const ExactSimilarity exact = exact_similarity(x, i, y, j, head);
      value(Metric::kCosine, i) = exact.cosine;
      value(Metric::kCosineCentered, i) = exact.centred;
      value(Metric::kL2, i) = exact.l2;
      value(Metric::kHamming, i) = hamming_of(x, i, y, j, head);
      value(Metric::kJaccard, i) = jaccard_similarity(common_bits(x.top(head), i, y.top(head), j),
                                                      static_cast<uint32_t>(x.top_size(head)));
    }
  });
}

PairSummary PairList::summary(Metric metric, int64_t first, int64_t last,
                              std::span<const float> thresholds) const {
  PairTotals totals;
  add_values(values_[static_cast<std::size_t>(metric)].data() + first, last - first,
             rules_of(metric, thresholds), totals.values, totals.histogram.data(), nullptr);
  return summarize(totals, metric, thresholds.size(), false);
}

}  // namespace kva
