#include <algorithm>
#include <cmath>

#include "kernels/check.h"
#include "kernels/similarity.h"

// Popcounts of whole vectors where the machine has them (Ice Lake, Zen 4); Highway leaves that target out
// unless asked.
#define HWY_WANT_AVX3_DL
#undef HWY_TARGET_INCLUDE
#define HWY_TARGET_INCLUDE "kernels/similarity_simd_cpu.cc"
#include <hwy/foreach_target.h>
#include <hwy/highway.h>

HWY_BEFORE_NAMESPACE();
namespace kva {
namespace HWY_NAMESPACE {

namespace hn = hwy::HWY_NAMESPACE;

template <class D, class V>
HWY_INLINE V ClampSimilarity(D d, V v) {
  return hn::Max(hn::Min(v, hn::Set(d, 1.0f)), hn::Set(d, -1.0f));
}

// What SimilarityRow() does, of the centred cosines alone.
bool CentredRow(const float* HWY_RESTRICT dots, int64_t n, const PageNorms& norms, int64_t i, int64_t first,
                float* HWY_RESTRICT centred) {
  const hn::ScalableTag<float> d;
  const int64_t lanes = static_cast<int64_t>(hn::Lanes(d));
  bool near = false;
  int64_t j = 0;
  for (; j + lanes <= n; j += lanes) {
    const int64_t p = first + j;
    const auto dot = hn::LoadU(d, dots + j);
    const auto cosine =
        hn::Mul(hn::Mul(dot, hn::Set(d, norms.centred_inverse[i])), hn::LoadU(d, norms.centred_inverse + p));
    hn::StoreU(ClampSimilarity(d, cosine), d, centred + j);
    const auto both = hn::Add(hn::Set(d, norms.centred_squared[i]), hn::LoadU(d, norms.centred_squared + p));
    const auto squared = hn::Max(hn::Sub(both, hn::Add(dot, dot)), hn::Zero(d));
    near |= !hn::AllFalse(d, hn::Le(squared, hn::Mul(hn::Set(d, norms.near), both)));
  }
  for (; j < n; ++j) {
    const int64_t p = first + j;
    centred[j] = cosine_similarity(dots[j], norms.centred_inverse[i], norms.centred_inverse[p]);
    const float squared = squared_distance(norms.centred_squared[i], norms.centred_squared[p], dots[j]);
    near |= nearly_equal(norms.centred_squared[i], norms.centred_squared[p], squared, norms.near);
  }
  return near;
}

bool SimilarityRow(const float* HWY_RESTRICT dots, int64_t n, const PageNorms& norms, int64_t i,
                   int64_t first, const ProductRow& out) {
  if (!out.cosine) return CentredRow(dots, n, norms, i, first, out.centred);
  const hn::ScalableTag<float> d;
  const int64_t lanes = static_cast<int64_t>(hn::Lanes(d));
  const float constant = norms.mean_dot[i] + norms.mean_squared;
  bool near = false;
  int64_t j = 0;
  for (; j + lanes <= n; j += lanes) {
    const int64_t p = first + j;
    const auto dot = hn::LoadU(d, dots + j);
    const auto centred =
        hn::Mul(hn::Mul(dot, hn::Set(d, norms.centred_inverse[i])), hn::LoadU(d, norms.centred_inverse + p));
    hn::StoreU(ClampSimilarity(d, centred), d, out.centred + j);
    const auto plain = hn::Add(dot, hn::Add(hn::LoadU(d, norms.mean_dot + p), hn::Set(d, constant)));
    const auto cosine =
        hn::Mul(hn::Mul(plain, hn::Set(d, norms.inverse[i])), hn::LoadU(d, norms.inverse + p));
    hn::StoreU(ClampSimilarity(d, cosine), d, out.cosine + j);
    const auto both = hn::Add(hn::Set(d, norms.centred_squared[i]), hn::LoadU(d, norms.centred_squared + p));
    const auto squared = hn::Max(hn::Sub(both, hn::Add(dot, dot)), hn::Zero(d));
    near |= !hn::AllFalse(d, hn::Le(squared, hn::Mul(hn::Set(d, norms.near), both)));
    const auto distance = hn::Sqrt(squared);
    hn::StoreU(distance, d, out.distance + j);
    const auto larger = hn::Max(hn::Set(d, norms.norm[i]), hn::LoadU(d, norms.norm + p));
    const auto some = hn::Gt(larger, hn::Zero(d));
    const auto ratio =
        hn::IfThenElseZero(some, hn::Div(distance, hn::IfThenElse(some, larger, hn::Set(d, 1.0f))));
    hn::StoreU(ClampSimilarity(d, hn::Sub(hn::Set(d, 1.0f), ratio)), d, out.l2 + j);
  }
  for (; j < n; ++j) {
    const int64_t p = first + j;
    out.centred[j] = cosine_similarity(dots[j], norms.centred_inverse[i], norms.centred_inverse[p]);
    out.cosine[j] =
        cosine_similarity(dots[j] + (norms.mean_dot[p] + constant), norms.inverse[i], norms.inverse[p]);
    const float squared = squared_distance(norms.centred_squared[i], norms.centred_squared[p], dots[j]);
    near |= nearly_equal(norms.centred_squared[i], norms.centred_squared[p], squared, norms.near);
    out.distance[j] = std::sqrt(squared);
    out.l2[j] = l2_similarity(out.distance[j], norms.norm[i], norms.norm[p]);
  }
  return near;
}

PairProducts PairProductsOf(const CentredBlock& x, const CentredBlock& y) {
  const hn::ScalableTag<double> d;
  const hn::Rebind<float, decltype(d)> half;
  const int64_t lanes = static_cast<int64_t>(hn::Lanes(d));
  auto centred_sum = hn::Zero(d);
  auto dot_sum = hn::Zero(d);
  auto distance_sum = hn::Zero(d);
  PairProducts result;
  for (int64_t t = 0; t < x.tokens; ++t) {
    const float* xs = x.values + t * x.channels;
    const float* ys = y.values + t * y.channels;
    int64_t c = 0;
    for (; c + lanes <= x.channels; c += lanes) {
      const auto a = hn::PromoteTo(d, hn::LoadU(half, xs + c));
      const auto b = hn::PromoteTo(d, hn::LoadU(half, ys + c));
      centred_sum = hn::MulAdd(a, b, centred_sum);
      const auto full_a =
          hn::Mul(hn::Add(a, hn::PromoteTo(d, hn::LoadU(half, x.mean + c))), hn::Set(d, x.unit));
      const auto full_b =
          hn::Mul(hn::Add(b, hn::PromoteTo(d, hn::LoadU(half, y.mean + c))), hn::Set(d, y.unit));
      dot_sum = hn::MulAdd(full_a, full_b, dot_sum);
      const auto difference = hn::Sub(full_a, full_b);
      distance_sum = hn::MulAdd(difference, difference, distance_sum);
    }
    for (; c < x.channels; ++c) {
      const double a = double{xs[c]};
      const double b = double{ys[c]};
      const double full_a = (a + double{x.mean[c]}) * x.unit;
      const double full_b = (b + double{y.mean[c]}) * y.unit;
      result.centred_dot += a * b;
      result.dot += full_a * full_b;
      result.squared_distance += (full_a - full_b) * (full_a - full_b);
    }
  }
  result.centred_dot += hn::GetLane(hn::SumOfLanes(d, centred_sum));
  result.dot += hn::GetLane(hn::SumOfLanes(d, dot_sum));
  result.squared_distance += hn::GetLane(hn::SumOfLanes(d, distance_sum));
  return result;
}

void HammingRow(const uint32_t* HWY_RESTRICT counts, int64_t n, uint32_t total, float* HWY_RESTRICT out) {
  for (int64_t j = 0; j < n; ++j) out[j] = hamming_similarity(counts[j], total);
}

void JaccardRow(const uint32_t* HWY_RESTRICT counts, int64_t n, uint32_t size, float* HWY_RESTRICT out) {
  for (int64_t j = 0; j < n; ++j) out[j] = jaccard_similarity(counts[j], size);
}

struct Differing {
  template <class V>
  HWY_INLINE V operator()(V a, V b) const {
    return hn::Xor(a, b);
  }
};

struct Common {
  template <class V>
  HWY_INLINE V operator()(V a, V b) const {
    return hn::And(a, b);
  }
};

// Counts of kRows pages against all columns; a vector holds one word of neighbouring pages.
template <int kRows, class Combine>
HWY_INLINE void CountRows(const BitMatrix& bits, int64_t row, int64_t column, int64_t out_row,
                          MatView<uint32_t> counts, Combine combine) {
  const hn::ScalableTag<uint64_t> d;
  const int64_t lanes = static_cast<int64_t>(hn::Lanes(d));
  const int64_t stride = bits.stride();
  for (int64_t j = 0; j < counts.cols; j += lanes) {
    const uint64_t* columns = bits.data() + column + j;
    const uint64_t* rows = bits.data() + row;
    auto sum0 = hn::Zero(d);
    auto sum1 = hn::Zero(d);
    auto sum2 = hn::Zero(d);
    auto sum3 = hn::Zero(d);
    for (int64_t w = 0; w < bits.words(); ++w, columns += stride, rows += stride) {
      const auto b = hn::LoadU(d, columns);
      sum0 = hn::Add(sum0, hn::PopulationCount(combine(hn::Set(d, rows[0]), b)));
      if constexpr (kRows == 4) {
        sum1 = hn::Add(sum1, hn::PopulationCount(combine(hn::Set(d, rows[1]), b)));
        sum2 = hn::Add(sum2, hn::PopulationCount(combine(hn::Set(d, rows[2]), b)));
        sum3 = hn::Add(sum3, hn::PopulationCount(combine(hn::Set(d, rows[3]), b)));
      }
    }
    const int64_t some = std::min(lanes, counts.cols - j);
    const auto store = [&](auto sum, int64_t r) HWY_ATTR {
      uint32_t* to = counts.row(out_row + r) + j;
#if HWY_TARGET != HWY_SCALAR
      const hn::Rebind<uint32_t, decltype(d)> narrow;
      if (some == lanes) return hn::StoreU(hn::TruncateTo(narrow, sum), narrow, to);
#endif
      HWY_ALIGN uint64_t sums[hn::MaxLanes(d)];
      hn::Store(sum, d, sums);
      for (int64_t k = 0; k < some; ++k) to[k] = static_cast<uint32_t>(sums[k]);
    };
    store(sum0, 0);
    if constexpr (kRows == 4) {
      store(sum1, 1);
      store(sum2, 2);
      store(sum3, 3);
    }
  }
}

template <class Combine>
HWY_INLINE void CountTile(const BitMatrix& bits, int64_t row, int64_t column, MatView<uint32_t> counts,
                          Combine combine) {
  int64_t r = 0;
  for (; r + 4 <= counts.rows; r += 4) CountRows<4>(bits, row + r, column, r, counts, combine);
  for (; r < counts.rows; ++r) CountRows<1>(bits, row + r, column, r, counts, combine);
}

void DifferingTile(const BitMatrix& bits, int64_t row, int64_t column, MatView<uint32_t> counts) {
  CountTile(bits, row, column, counts, Differing());
}

void CommonTile(const BitMatrix& bits, int64_t row, int64_t column, MatView<uint32_t> counts) {
  CountTile(bits, row, column, counts, Common());
}

int64_t NextAtLeast(const float* HWY_RESTRICT values, const float* HWY_RESTRICT of_each, float least,
                    int64_t from, int64_t n) {
  const hn::ScalableTag<float> d;
  const int64_t lanes = static_cast<int64_t>(hn::Lanes(d));
  const auto bound = hn::Set(d, least);
  for (; from + lanes <= n; from += lanes) {
    const auto v = hn::LoadU(d, values + from);
    const auto found = hn::FindFirstTrue(d, hn::Ge(v, hn::Min(bound, hn::LoadU(d, of_each + from))));
    if (found >= 0) return from + found;
  }
  while (from < n && values[from] < std::min(least, of_each[from])) ++from;
  return from;
}

// At most 64 vectors, so that 32-bit lane sums of quantized values cannot overflow.
float AddChunk(const float* HWY_RESTRICT values, int64_t n, const ValueRules& rules, ValueTotals& totals,
               int64_t* HWY_RESTRICT histogram, float* HWY_RESTRICT best) {
  const hn::ScalableTag<float> d;
#if HWY_TARGET != HWY_SCALAR
  const hn::RebindToSigned<decltype(d)> di;
  const hn::Repartition<uint64_t, decltype(d)> du64;
  const hn::Repartition<int64_t, decltype(d)> di64;
#endif
  const int64_t lanes = static_cast<int64_t>(hn::Lanes(d));
  const float scale = static_cast<float>(kHistogramBins) / (1.0f - rules.low);
  HWY_ALIGN int32_t bins[64 * hn::MaxLanes(d)];
  int64_t sum = 0;
  int64_t square = 0;
  int64_t j = 0;
#if HWY_TARGET != HWY_SCALAR
  auto sums = hn::Zero(di);
  auto squares = hn::Zero(di64);
  auto low = hn::Set(d, totals.min);
  auto high = hn::Set(d, -2.0f);
  for (; j + lanes <= n; j += lanes) {
    const auto v = hn::LoadU(d, values + j);
    const auto q = hn::NearestInt(hn::Mul(v, hn::Set(d, kFixedOne)));
    sums = hn::Add(sums, q);
    const auto odd = hn::BitCast(di, hn::ShiftRight<32>(hn::BitCast(du64, q)));
    squares = hn::Add(squares, hn::Add(hn::MulEven(q, q), hn::MulEven(odd, odd)));
    low = hn::Min(low, v);
    high = hn::Max(high, v);
    if (best != nullptr) hn::StoreU(hn::Max(hn::LoadU(d, best + j), v), d, best + j);
    const auto bin = hn::ConvertTo(di, hn::Mul(hn::Sub(v, hn::Set(d, rules.low)), hn::Set(d, scale)));
    hn::Store(hn::Min(bin, hn::Set(di, kHistogramBins - 1)), di, bins + j);
  }
  HWY_ALIGN int32_t sum_lanes[hn::MaxLanes(d)];
  hn::Store(sums, di, sum_lanes);
  for (int64_t k = 0; k < lanes; ++k) sum += sum_lanes[k];
  square = hn::GetLane(hn::SumOfLanes(di64, squares));
  float smallest = hn::GetLane(hn::MinOfLanes(d, low));
  float largest = hn::GetLane(hn::MaxOfLanes(d, high));
#else
  float smallest = totals.min;
  float largest = -2.0f;
#endif
  const int64_t vectors_end = j;
  for (; j < n; ++j) {
    const float v = values[j];
    const int64_t q = static_cast<int64_t>(std::nearbyint(v * kFixedOne));
    sum += q;
    square += q * q;
    smallest = std::min(smallest, v);
    largest = std::max(largest, v);
    if (best != nullptr) best[j] = std::max(best[j], v);
    bins[j] = histogram_bin(v, rules.low, scale, kHistogramBins);
  }
  for (std::size_t t = 0; t < rules.thresholds.size(); ++t) {
    const float threshold = rules.thresholds[t];
    int64_t over = 0;
    for (j = 0; j < vectors_end; j += lanes)
      over += static_cast<int64_t>(hn::CountTrue(d, hn::Gt(hn::LoadU(d, values + j), hn::Set(d, threshold))));
    for (; j < n; ++j) over += values[j] > threshold;
    totals.over[t] += over;
  }
  if (histogram != nullptr)
    for (j = 0; j < n; ++j) ++histogram[bins[j]];
  totals.count += n;
  totals.sum += sum;
  totals.squares_high += square >> 24;
  totals.squares_low += square & 0xffffff;
  totals.min = smallest;
  totals.max = std::max(totals.max, largest);
  return largest;
}

float AddValues(const float* values, int64_t n, const ValueRules& rules, ValueTotals& totals,
                int64_t* histogram, float* best) {
  const int64_t chunk = 64 * static_cast<int64_t>(hn::Lanes(hn::ScalableTag<float>()));
  float largest = -2.0f;
  for (int64_t first = 0; first < n; first += chunk)
    largest = std::max(largest, AddChunk(values + first, std::min(chunk, n - first), rules, totals, histogram,
                                         best == nullptr ? nullptr : best + first));
  return largest;
}

double SumValues(const float* values, int64_t n) {
  const hn::ScalableTag<double> d;
  const hn::Rebind<float, decltype(d)> half;
  const int64_t lanes = static_cast<int64_t>(hn::Lanes(d));
  auto sums = hn::Zero(d);
  int64_t j = 0;
  for (; j + lanes <= n; j += lanes) sums = hn::Add(sums, hn::PromoteTo(d, hn::LoadU(half, values + j)));
  double sum = hn::GetLane(hn::SumOfLanes(d, sums));
  for (; j < n; ++j) sum += double{values[j]};
  return sum;
}

}  // namespace HWY_NAMESPACE
}  // namespace kva
HWY_AFTER_NAMESPACE();

#if HWY_ONCE
namespace kva {
namespace {

HWY_EXPORT(SimilarityRow);
HWY_EXPORT(PairProductsOf);
HWY_EXPORT(HammingRow);
HWY_EXPORT(JaccardRow);
HWY_EXPORT(DifferingTile);
HWY_EXPORT(CommonTile);
HWY_EXPORT(AddValues);
HWY_EXPORT(NextAtLeast);
HWY_EXPORT(SumValues);

void check_bit_tile(const BitMatrix& bits, int64_t row, int64_t column, MatView<uint32_t> counts) {
  KVA_CHECK(
      row >= 0 && column >= 0 && row + counts.rows <= bits.pages() && column + counts.cols <= bits.pages(),
      "a tile inside the bit matrix");
}

}  // namespace

bool similarity_row(const float* dots, int64_t n, const PageNorms& norms, int64_t i, int64_t first,
                    const ProductRow& out) {
  return HWY_DYNAMIC_DISPATCH(SimilarityRow)(dots, n, norms, i, first, out);
}

PairProducts pair_products(const CentredBlock& x, const CentredBlock& y) {
  KVA_CHECK(x.tokens == y.tokens && x.channels == y.channels, "blocks of one shape");
  return HWY_DYNAMIC_DISPATCH(PairProductsOf)(x, y);
}

void hamming_row(const uint32_t* counts, int64_t n, int64_t total, float* out) {
  HWY_DYNAMIC_DISPATCH(HammingRow)(counts, n, static_cast<uint32_t>(total), out);
}

void jaccard_row(const uint32_t* counts, int64_t n, int64_t size, float* out) {
  HWY_DYNAMIC_DISPATCH(JaccardRow)(counts, n, static_cast<uint32_t>(size), out);
}

void differing_bits_tile(const BitMatrix& bits, int64_t row, int64_t column, MatView<uint32_t> counts) {
  check_bit_tile(bits, row, column, counts);
  HWY_DYNAMIC_DISPATCH(DifferingTile)(bits, row, column, counts);
}

void common_bits_tile(const BitMatrix& bits, int64_t row, int64_t column, MatView<uint32_t> counts) {
  check_bit_tile(bits, row, column, counts);
  HWY_DYNAMIC_DISPATCH(CommonTile)(bits, row, column, counts);
}

float add_values(const float* values, int64_t n, const ValueRules& rules, ValueTotals& totals,
                 int64_t* histogram, float* best) {
  KVA_CHECK(rules.thresholds.size() <= kMaxThresholds, "too many thresholds");
  return HWY_DYNAMIC_DISPATCH(AddValues)(values, n, rules, totals, histogram, best);
}

int64_t next_at_least(const float* values, const float* of_each, float least, int64_t from, int64_t n) {
  return HWY_DYNAMIC_DISPATCH(NextAtLeast)(values, of_each, least, from, n);
}

double sum_values(const float* values, int64_t n) { return HWY_DYNAMIC_DISPATCH(SumValues)(values, n); }

}  // namespace kva
#endif
