#include "analyzer/quality/distribution.h"

#include <algorithm>
#include <cmath>
#include <limits>

#undef HWY_TARGET_INCLUDE
#define HWY_TARGET_INCLUDE "analyzer/quality/distribution.cc"
#include <hwy/foreach_target.h>
// After foreach_target.h, as Highway asks.
#include <hwy/contrib/math/math-inl.h>
#include <hwy/highway.h>

#ifndef KVA_ANALYZER_QUALITY_DISTRIBUTION_ONCE_
#define KVA_ANALYZER_QUALITY_DISTRIBUTION_ONCE_
namespace kva {
namespace {

constexpr int64_t kBlock = 1024;  // logits: a multiple of every vector's length, small beside the L1 cache

// The largest logit and its lowest index; max is NaN where the row is no distribution.
struct Peak {
  float max = -std::numeric_limits<float>::infinity();
  int64_t index = 0;
};

struct RowSums {
  double exp_sum = 0.0;   // sum of exp(c), c the candidate's logits less their maximum
  double weighted = 0.0;  // sum of exp(b) (b - c), b the base's likewise
};

// The block of `count` logits at `logits`, or, where it is shorter than a block, a copy that is filled up
// with logits of probability 0.
const float* whole_block(const float* logits, int64_t count, float* copy) {
  if (count == kBlock) return logits;
  std::copy_n(logits, count, copy);
  std::fill(copy + count, copy + kBlock, -std::numeric_limits<float>::infinity());
  return copy;
}

}  // namespace
}  // namespace kva
#endif

HWY_BEFORE_NAMESPACE();
namespace kva {
namespace HWY_NAMESPACE {
namespace hn = hwy::HWY_NAMESPACE;

using Narrow = hn::ScalableTag<float>;
using Wide = hn::ScalableTag<double>;
using Doubles = hn::Vec<Wide>;

// The largest of a block; NaN where one of them is.
float BlockMax(const float* logits) {
  const Narrow d;
  const int64_t lanes = static_cast<int64_t>(hn::Lanes(d));
  auto max = hn::LoadU(d, logits);
  auto broken = hn::IsNaN(max);
  for (int64_t i = lanes; i < kBlock; i += lanes) {
    const auto value = hn::LoadU(d, logits + i);
    broken = hn::Or(broken, hn::IsNaN(value));
    max = hn::Max(max, value);
  }
  if (!hn::AllFalse(d, broken)) return std::numeric_limits<float>::quiet_NaN();
  return hn::GetLane(hn::MaxOfLanes(d, max));
}

Peak FindPeak(const float* logits, int64_t vocabulary) {
  HWY_ALIGN float copy[kBlock];
  Peak peak;
  int64_t of_peak = 0;
  for (int64_t first = 0; first < vocabulary; first += kBlock) {
    const int64_t count = std::min(kBlock, vocabulary - first);
    const float max = BlockMax(whole_block(logits + first, count, copy));
    if (std::isnan(max)) return {max, 0};
    if (max > peak.max) {
      peak.max = max;
      of_peak = first;
    }
  }
  if (std::isinf(peak.max)) return {std::numeric_limits<float>::quiet_NaN(), 0};
  const float* from = logits + of_peak;
  peak.index = std::find(from, logits + std::min(of_peak + kBlock, vocabulary), peak.max) - logits;
  return peak;
}

struct LogitPair {
  Doubles base;
  Doubles candidate;
};

HWY_INLINE LogitPair LoadPair(const float* base, const float* candidate, Doubles base_max,
                              Doubles candidate_max) {
  const Wide d;
  const hn::Rebind<float, Wide> half;
  return {hn::Sub(hn::PromoteTo(d, hn::LoadU(half, base)), base_max),
          hn::Sub(hn::PromoteTo(d, hn::LoadU(half, candidate)), candidate_max)};
}

// exp(b) (b - c), and 0 where exp(b) is 0, whatever c is: 0 ln(0 / q) = 0.
HWY_INLINE Doubles Weighted(LogitPair pair) {
  const Wide d;
  const Doubles weight = hn::Exp(d, pair.base);
  return hn::IfThenElseZero(hn::Gt(weight, hn::Zero(d)), hn::Mul(weight, hn::Sub(pair.base, pair.candidate)));
}

RowSums SumRows(const float* base, float base_max, const float* candidate, float candidate_max,
                int64_t vocabulary) {
  const Wide d;
  const int64_t lanes = static_cast<int64_t>(hn::Lanes(d));
  const Doubles less_base = hn::Set(d, static_cast<double>(base_max));
  const Doubles less_candidate = hn::Set(d, static_cast<double>(candidate_max));
  HWY_ALIGN float base_copy[kBlock];
  HWY_ALIGN float candidate_copy[kBlock];
  RowSums sums;
  for (int64_t first = 0; first < vocabulary; first += kBlock) {
    const int64_t count = std::min(kBlock, vocabulary - first);
    const float* b = whole_block(base + first, count, base_copy);
    const float* c = whole_block(candidate + first, count, candidate_copy);
    Doubles exp_sum0 = hn::Zero(d), exp_sum1 = hn::Zero(d), weighted0 = hn::Zero(d), weighted1 = hn::Zero(d);
    // Two vectors at a time, so that one's exponential runs beside the other's.
    for (int64_t i = 0; i < count; i += 2 * lanes) {
      const LogitPair pair0 = LoadPair(b + i, c + i, less_base, less_candidate);
      const LogitPair pair1 = LoadPair(b + i + lanes, c + i + lanes, less_base, less_candidate);
      exp_sum0 = hn::Add(exp_sum0, hn::Exp(d, pair0.candidate));
      exp_sum1 = hn::Add(exp_sum1, hn::Exp(d, pair1.candidate));
      weighted0 = hn::Add(weighted0, Weighted(pair0));
      weighted1 = hn::Add(weighted1, Weighted(pair1));
    }
    sums.exp_sum += hn::GetLane(hn::SumOfLanes(d, hn::Add(exp_sum0, exp_sum1)));
    sums.weighted += hn::GetLane(hn::SumOfLanes(d, hn::Add(weighted0, weighted1)));
  }
  return sums;
}

}  // namespace HWY_NAMESPACE
}  // namespace kva
HWY_AFTER_NAMESPACE();

#if HWY_ONCE
namespace kva {
namespace {

HWY_EXPORT(FindPeak);
HWY_EXPORT(SumRows);

constexpr double kNan = std::numeric_limits<double>::quiet_NaN();

// -ln of the probability of `logit` in a row with this maximum and sum; NaN where max is.
double nll_of(float logit, float max, double exp_sum) {
  if (std::isnan(max)) return kNan;
  return std::log(exp_sum) + (static_cast<double>(max) - static_cast<double>(logit));
}

}  // namespace

BaseDistributions::BaseDistributions(MatView<const float> logits, std::span<const int32_t> targets,
                                     ThreadPool& pool)
    : logits_(logits), rows_(targets.size()) {
  KVA_CHECK(logits.cols >= 1, "a vocabulary");
  KVA_CHECK(logits.rows == static_cast<int64_t>(targets.size()), "one target a row");
  for (const int32_t target : targets)
    KVA_CHECK(target >= 0 && target < logits.cols, "targets inside the vocabulary");
  pool.parallel_for(logits.rows, [&](int64_t r, int) {
    const float* logits_of_row = logits_.row(r);
    const Peak peak = HWY_DYNAMIC_DISPATCH(FindPeak)(logits_of_row, logits_.cols);
    Row& row = rows_[static_cast<std::size_t>(r)];
    row.max = peak.max;
    row.argmax = peak.index;
    row.target = targets[static_cast<std::size_t>(r)];
    if (std::isnan(peak.max)) return;
    // The very sum that a candidate's row goes through, so that equal rows have equal sums to the last bit.
    row.exp_sum =
        HWY_DYNAMIC_DISPATCH(SumRows)(logits_of_row, peak.max, logits_of_row, peak.max, logits_.cols).exp_sum;
  });
}

TokenScore BaseDistributions::score(const Row& row, int64_t r, const float* candidate) const {
  const float* base = logits_.row(r);
  const Peak peak = HWY_DYNAMIC_DISPATCH(FindPeak)(candidate, logits_.cols);
  TokenScore score;
  score.nll_base = nll_of(base[row.target], row.max, row.exp_sum);
  score.p_base = std::exp(-score.nll_base);
  if (std::isnan(peak.max)) {
    score.nll = score.kl = score.p = kNan;
    return score;
  }
  // A broken base leaves the candidate's own loss as it is.
  const bool broken = std::isnan(row.max);
  const RowSums sums = HWY_DYNAMIC_DISPATCH(SumRows)(broken ? candidate : base, broken ? peak.max : row.max,
                                                     candidate, peak.max, logits_.cols);
  score.nll = nll_of(candidate[row.target], peak.max, sums.exp_sum);
  score.p = std::exp(-score.nll);
  score.kl = broken ? kNan : sums.weighted / row.exp_sum + (std::log(sums.exp_sum) - std::log(row.exp_sum));
  score.same_top = !broken && peak.index == row.argmax;
  return score;
}

void BaseDistributions::compare(MatView<const float> candidate, std::span<TokenScore> scores,
                                ThreadPool& pool) const {
  KVA_CHECK(candidate.rows == logits_.rows && candidate.cols == logits_.cols, "logits of one shape");
  KVA_CHECK(static_cast<int64_t>(scores.size()) == logits_.rows, "one score a row");
  pool.parallel_for(candidate.rows, [&](int64_t r, int) {
    const std::size_t at = static_cast<std::size_t>(r);
    scores[at] = score(rows_[at], r, candidate.row(r));
  });
}

}  // namespace kva
#endif
