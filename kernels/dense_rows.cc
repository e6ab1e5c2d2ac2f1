#include "kernels/dense_rows.h"

#include <algorithm>

#include "kernels/fetch.h"

#undef HWY_TARGET_INCLUDE
#define HWY_TARGET_INCLUDE "kernels/dense_rows.cc"
#include <hwy/foreach_target.h>
#include <hwy/highway.h>

#include "kernels/simd-inl.h"

HWY_BEFORE_NAMESPACE();
namespace kva {
namespace HWY_NAMESPACE {

constexpr int kTokens = 4;  // stored rows taken together, so that their sums share one reduction
#if HWY_TARGET <= HWY_AVX3
constexpr int kVectors = 4;  // of a row that stay in registers for all queries of a block
#else
constexpr int kVectors = 2;
#endif

template <class S>
constexpr int64_t kBytes = sizeof(typename S::Stored);

// What is in units of S::kUnit, in units of 1.
template <class S>
HWY_INLINE float InUnits(float value) {
  if constexpr (S::kUnit == 1.0f) return value;
  return value * S::kUnit;
}

// kQueries queries, kTokens stored rows; dots[q][i] = query q · row i. Loops over constants are unrolled, so
// that all the sums stay in registers.
template <class S, int kQueries, class D>
HWY_INLINE void DotBlock(D d, const float* queries, int64_t query_stride,
                         const typename S::Stored* HWY_RESTRICT const (&rows)[kTokens], int64_t dim,
                         float (&dots)[kQueries][kTokens]) {
  const int64_t lanes = static_cast<int64_t>(hn::Lanes(d));
  hn::Vec<D> sums[kQueries][kTokens];
#pragma GCC unroll 4
  for (int q = 0; q < kQueries; ++q) {
#pragma GCC unroll 4
    for (int i = 0; i < kTokens; ++i) sums[q][i] = hn::Zero(d);
  }
  int64_t c = 0;
  for (; c + lanes <= dim; c += lanes) {
    hn::Vec<D> values[kTokens];
#pragma GCC unroll 4
    for (int i = 0; i < kTokens; ++i) values[i] = S::load(d, rows[i] + c);
#pragma GCC unroll 4
    for (int q = 0; q < kQueries; ++q) {
      const auto query = hn::LoadU(d, queries + q * query_stride + c);
#pragma GCC unroll 4
      for (int i = 0; i < kTokens; ++i) sums[q][i] = hn::MulAdd(query, values[i], sums[q][i]);
    }
  }
#pragma GCC unroll 4
  for (int q = 0; q < kQueries; ++q) SumFour(d, sums[q][0], sums[q][1], sums[q][2], sums[q][3], dots[q]);
  for (; c < dim; ++c)
    for (int q = 0; q < kQueries; ++q)
      for (int i = 0; i < kTokens; ++i) dots[q][i] += queries[q * query_stride + c] * S::one(rows[i] + c);
}

// Queries [first, first + kQueries) against all stored rows.
template <class S, int kQueries, class D>
void ScoreQueries(D d, MatView<const float> queries, int64_t first, const typename S::Stored* stored,
                  const std::byte* ahead, MatView<float> scores) {
  const int64_t dim = queries.cols;
  const float* of_block = queries.row(first);
  float dots[kQueries][kTokens];
  int64_t t = 0;
  for (; t + kTokens <= scores.cols; t += kTokens) {
    const typename S::Stored* at = stored + t * dim;
    if (ahead && first == 0) fetch(ahead + t * dim * kBytes<S>, kTokens * dim * kBytes<S>);
    DotBlock<S, kQueries>(d, of_block, queries.stride, {at, at + dim, at + 2 * dim, at + 3 * dim}, dim, dots);
    for (int q = 0; q < kQueries; ++q)
      for (int i = 0; i < kTokens; ++i) scores.row(first + q)[t + i] = InUnits<S>(dots[q][i]);
  }
  if (t == scores.cols) return;
  // The last row stands in for those that are missing, and their results are dropped.
  const auto row = [&](int64_t i) { return stored + std::min(t + i, scores.cols - 1) * dim; };
  DotBlock<S, kQueries>(d, of_block, queries.stride, {row(0), row(1), row(2), row(3)}, dim, dots);
  for (int q = 0; q < kQueries; ++q)
    for (int64_t i = 0; t + i < scores.cols; ++i) scores.row(first + q)[t + i] = InUnits<S>(dots[q][i]);
}

// Columns [c, c + kColumns vectors) of out rows [first, first + kQueries).
template <class S, int kQueries, int kColumns, class D>
HWY_INLINE void AccumulateColumns(D d, MatView<const float> weights, int64_t first,
                                  const typename S::Stored* HWY_RESTRICT stored, const std::byte* ahead,
                                  MatView<float> out, int64_t c) {
  const int64_t lanes = static_cast<int64_t>(hn::Lanes(d));
  hn::Vec<D> sums[kQueries][kColumns];
#pragma GCC unroll 4
  for (int q = 0; q < kQueries; ++q) {
#pragma GCC unroll 4
    for (int v = 0; v < kColumns; ++v) {
      const auto before = hn::LoadU(d, out.row(first + q) + c + v * lanes);
      sums[q][v] = S::kUnit == 1.0f ? before : hn::Mul(before, hn::Set(d, 1.0f / S::kUnit));
    }
  }
  const float* HWY_RESTRICT weight = weights.row(first);
  const typename S::Stored* HWY_RESTRICT row = stored + c;
  for (int64_t t = 0; t < weights.cols; ++t, row += out.cols, ++weight) {
    if (ahead && first == 0) fetch(ahead + (t * out.cols + c) * kBytes<S>, kColumns * lanes * kBytes<S>);
    hn::Vec<D> values[kColumns];
#pragma GCC unroll 4
    for (int v = 0; v < kColumns; ++v) values[v] = S::load(d, row + v * lanes);
#pragma GCC unroll 4
    for (int q = 0; q < kQueries; ++q) {
      const auto by = hn::Set(d, weight[q * weights.stride]);
#pragma GCC unroll 4
      for (int v = 0; v < kColumns; ++v) sums[q][v] = hn::MulAdd(by, values[v], sums[q][v]);
    }
  }
#pragma GCC unroll 4
  for (int q = 0; q < kQueries; ++q) {
#pragma GCC unroll 4
    for (int v = 0; v < kColumns; ++v) {
      const auto sum = S::kUnit == 1.0f ? sums[q][v] : hn::Mul(sums[q][v], hn::Set(d, S::kUnit));
      hn::StoreU(sum, d, out.row(first + q) + c + v * lanes);
    }
  }
}

template <class S, int kQueries, class D>
void AccumulateQueries(D d, MatView<const float> weights, int64_t first, const typename S::Stored* stored,
                       const std::byte* ahead, MatView<float> out) {
  const int64_t lanes = static_cast<int64_t>(hn::Lanes(d));
  int64_t c = 0;
  for (; c + kVectors * lanes <= out.cols; c += kVectors * lanes)
    AccumulateColumns<S, kQueries, kVectors>(d, weights, first, stored, ahead, out, c);
  for (; c + lanes <= out.cols; c += lanes)
    AccumulateColumns<S, kQueries, 1>(d, weights, first, stored, ahead, out, c);
  for (; c < out.cols; ++c)
    for (int q = 0; q < kQueries; ++q)
      for (int64_t t = 0; t < weights.cols; ++t)
        out.at(first + q, c) += InUnits<S>(weights.at(first + q, t) * S::one(stored + t * out.cols + c));
}

// Calls body(constant number of queries, first query) for blocks that cover `queries`.
template <class Body>
HWY_INLINE void for_query_blocks(int64_t queries, const Body& body) {
  int64_t first = 0;
  for (; queries - first >= 4; first += 4) body(std::integral_constant<int, 4>(), first);
  for (; queries - first >= 3; first += 3) body(std::integral_constant<int, 3>(), first);
  for (; first < queries; ++first) body(std::integral_constant<int, 1>(), first);
}

// Calls body(tag) with full vectors, or with four lanes where rows are too short or odd for those.
template <class Body>
HWY_INLINE void with_tag(int64_t dim, const Body& body) {
  const hn::ScalableTag<float> d;
  if (dim % static_cast<int64_t>(hn::Lanes(d)) != 0 && dim % 4 == 0) return body(hn::CappedTag<float, 4>());
  body(d);
}

template <class Type>
HWY_INLINE void StoredScores(MatView<const float> queries, const void* stored, Type type,
                             const std::byte* ahead, MatView<float> scores) {
  with_stored(type, [&](auto s) {
    using S = decltype(s);
    const auto* rows = static_cast<const typename S::Stored*>(stored);
    with_tag(queries.cols, [&](auto d) {
      for_query_blocks(queries.rows, [&](auto block, int64_t first) {
        ScoreQueries<S, decltype(block)::value>(d, queries, first, rows, ahead, scores);
      });
    });
  });
}

template <class Type>
HWY_INLINE void StoredAccumulate(MatView<const float> weights, const void* stored, Type type,
                                 const std::byte* ahead, MatView<float> out) {
  with_stored(type, [&](auto s) {
    using S = decltype(s);
    const auto* rows = static_cast<const typename S::Stored*>(stored);
    with_tag(out.cols, [&](auto d) {
      for_query_blocks(out.rows, [&](auto block, int64_t first) {
        AccumulateQueries<S, decltype(block)::value>(d, weights, first, rows, ahead, out);
      });
    });
  });
}

void DenseScores(MatView<const float> queries, const void* stored, DType type, const std::byte* ahead,
                 MatView<float> scores) {
  StoredScores(queries, stored, type, ahead, scores);
}
void DenseAccumulate(MatView<const float> weights, const void* stored, DType type, const std::byte* ahead,
                     MatView<float> out) {
  StoredAccumulate(weights, stored, type, ahead, out);
}

// Whether none of the codes is a NaN of E4M3. Looking costs a tenth of what reading all codes as if there
// were some does.
bool AllFiniteE4M3(const uint8_t* codes, int64_t count) {
  const hn::ScalableTag<uint8_t> d;
  const auto lanes = static_cast<int64_t>(hn::Lanes(d));
  constexpr uint8_t kNaN = 0x7f;  // and with the sign
  auto most = hn::Zero(d);
  int64_t i = 0;
  for (; i + lanes <= count; i += lanes)
    most = hn::Max(most, hn::And(hn::LoadU(d, codes + i), hn::Set(d, kNaN)));
  bool finite = hn::AllFalse(d, hn::Eq(most, hn::Set(d, kNaN)));
  for (; i < count; ++i) finite &= (codes[i] & kNaN) != kNaN;
  return finite;
}

void Fp8Scores(MatView<const float> queries, const uint8_t* stored, Fp8 type, const std::byte* ahead,
               MatView<float> scores) {
  if (type == Fp8::kE4M3 && AllFiniteE4M3(stored, scores.cols * queries.cols))
    return StoredScores(queries, stored, FiniteE4M3(), ahead, scores);
  StoredScores(queries, stored, type, ahead, scores);
}
void Fp8Accumulate(MatView<const float> weights, const uint8_t* stored, Fp8 type, const std::byte* ahead,
                   MatView<float> out) {
  if (type == Fp8::kE4M3 && AllFiniteE4M3(stored, weights.cols * out.cols))
    return StoredAccumulate(weights, stored, FiniteE4M3(), ahead, out);
  StoredAccumulate(weights, stored, type, ahead, out);
}

}  // namespace HWY_NAMESPACE
}  // namespace kva
HWY_AFTER_NAMESPACE();

#if HWY_ONCE
namespace kva {
namespace {

HWY_EXPORT(DenseScores);
HWY_EXPORT(DenseAccumulate);
HWY_EXPORT(Fp8Scores);
HWY_EXPORT(Fp8Accumulate);

}  // namespace

void dense_scores(MatView<const float> queries, const void* stored, DType type, MatView<float> scores,
                  const std::byte* ahead) {
  KVA_CHECK(scores.rows == queries.rows, "one row of scores a query");
  HWY_DYNAMIC_DISPATCH(DenseScores)(queries, stored, type, ahead, scores);
}

void dense_accumulate(MatView<const float> weights, const void* stored, DType type, MatView<float> out,
                      const std::byte* ahead) {
  KVA_CHECK(weights.rows == out.rows, "one row of weights a row of results");
  HWY_DYNAMIC_DISPATCH(DenseAccumulate)(weights, stored, type, ahead, out);
}

void fp8_scores(MatView<const float> queries, const uint8_t* stored, Fp8 type, MatView<float> scores,
                const std::byte* ahead) {
  KVA_CHECK(scores.rows == queries.rows, "one row of scores a query");
  HWY_DYNAMIC_DISPATCH(Fp8Scores)(queries, stored, type, ahead, scores);
}

void fp8_accumulate(MatView<const float> weights, const uint8_t* stored, Fp8 type, MatView<float> out,
                    const std::byte* ahead) {
  KVA_CHECK(weights.rows == out.rows, "one row of weights a row of results");
  HWY_DYNAMIC_DISPATCH(Fp8Accumulate)(weights, stored, type, ahead, out);
}

}  // namespace kva
#endif
