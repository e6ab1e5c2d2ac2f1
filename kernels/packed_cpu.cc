#include <algorithm>
#include <cmath>
#include <cstring>
#include <type_traits>

#include "kernels/check.h"
#include "kernels/convert.h"
#include "kernels/dense_rows.h"
#include "kernels/packed.h"
#include "kernels/packed_job.h"

#undef HWY_TARGET_INCLUDE
#define HWY_TARGET_INCLUDE "kernels/packed_cpu.cc"
#include <hwy/foreach_target.h>
#include <hwy/highway.h>

#include "kernels/packed-inl.h"

HWY_BEFORE_NAMESPACE();
namespace kva {
namespace HWY_NAMESPACE {

// out[i] += sums[i] * scales[i] + zeros[i] * total
void AddScaled(const float* sums, const float* scales, const float* zeros, float total, float* out,
               int64_t count) {
  for (int64_t i = 0; i < count; ++i) out[i] += sums[i] * scales[i] + zeros[i] * total;
}

// The sum of a[i] * b[i].
float DotOf(const float* a, const float* b, int64_t count) {
  const hn::ScalableTag<float> d;
  const int64_t lanes = static_cast<int64_t>(hn::Lanes(d));
  auto sums = hn::Zero(d);
  int64_t i = 0;
  for (; i + lanes <= count; i += lanes) sums = hn::MulAdd(hn::LoadU(d, a + i), hn::LoadU(d, b + i), sums);
  float sum = hn::GetLane(hn::SumOfLanes(d, sums));
  for (; i < count; ++i) sum += a[i] * b[i];
  return sum;
}

float SumOf(const float* a, int64_t count) {
  const hn::ScalableTag<float> d;
  const int64_t lanes = static_cast<int64_t>(hn::Lanes(d));
  auto sums = hn::Zero(d);
  int64_t i = 0;
  for (; i + lanes <= count; i += lanes) sums = hn::Add(hn::LoadU(d, a + i), sums);
  float sum = hn::GetLane(hn::SumOfLanes(d, sums));
  for (; i < count; ++i) sum += a[i];
  return sum;
}

// Calls body(Codes<bits>(), tag): full vectors, but none wider than a padded slice.
template <class Body>
HWY_INLINE void with_codes(const PackedJob& job, const Body& body) {
  const auto with_tag = [&](auto codes) {
    const hn::CappedTag<float, 16> full;
    if constexpr (hn::MaxLanes(full) > 8) {
      if (job.pad < static_cast<int64_t>(hn::Lanes(full))) return body(codes, hn::CappedTag<float, 8>());
    }
    body(codes, full);
  };
  switch (job.shape.bits) {
    case 2: return with_tag(Codes<2>());
    case 3: return with_tag(Codes<3>());
    case 4: return with_tag(Codes<4>());
    default: return with_tag(Codes<8>());
  }
}

template <class C, class D>
void ScoreTokens(D d, PackedJob& job, MatView<const float> queries, MatView<float> scores) {
  const int64_t stride = job.slices() * job.pad;
  float* padded = job.take(queries.rows * stride);
  for (int64_t q = 0; q < queries.rows; ++q)
    PadQuery<C>(job, queries.row(q), nullptr, true, padded + q * stride);
  Dots<C, false>(d, job, padded, {}, 0, scores);
  for (int64_t q = 0; q < queries.rows; ++q) {
    const float sum = SumOf(queries.row(q), queries.cols);
    float* row = scores.row(q);
    for (int64_t t = 0; t < scores.cols; ++t) row[t] = row[t] * job.scales[t] + sum * job.zeros[t];
  }
}

template <class C, class D>
void ScoreChannels(D d, PackedJob& job, MatView<const float> queries, MatView<float> scores) {
  const int64_t stride = job.slices() * job.pad;
  float* padded = job.take(queries.rows * stride);
  const PackedPage& page = job.page;
  for (int64_t t = 0; t < page.tokens; t += page.group) {
    const float* scales = job.scales + t / page.group * page.width;
    const float* zeros = job.zeros + t / page.group * page.width;
    for (int64_t q = 0; q < queries.rows; ++q)
      PadQuery<C>(job, queries.row(q), scales, true, padded + q * stride);
    const MatView<float> of_group = scores.col_range(t, std::min(page.group, page.tokens - t));
    Dots<C, false>(d, job, padded, {}, t, of_group);
    for (int64_t q = 0; q < queries.rows; ++q) {
      const float constant = DotOf(queries.row(q), zeros, page.width);
      for (int64_t i = 0; i < of_group.cols; ++i) of_group.at(q, i) += constant;
    }
  }
}

template <class C>
SliceScales ScalesOfSlices(PackedJob& job) {
  const int64_t stride = job.slices();
  float* scales = job.take(job.page.tokens * stride);
  float* zeros = job.take(job.page.tokens * stride);
  for (int64_t s = 0; s < stride; ++s) {
    const int j = static_cast<int>(s % C::kSlices);
    // An empty slice has the row's last group for a scale, and no query.
    const int64_t channel = std::min(job.shape.first_channel(s / C::kSlices, j), job.page.width - 1);
    const int64_t group = channel / job.page.group;
    for (int64_t t = 0; t < job.page.tokens; ++t) {
      scales[t * stride + s] = job.scales[t * job.groups + group] * C::unit(j);
      zeros[t * stride + s] = job.zeros[t * job.groups + group];
    }
  }
  return {scales, zeros, stride};
}

template <class C, class D>
void ScoreSlices(D d, PackedJob& job, MatView<const float> queries, MatView<float> scores) {
  const SliceScales of = ScalesOfSlices<C>(job);
  const int64_t stride = job.slices() * job.pad;
  float* padded = job.take(queries.rows * stride);
  for (int64_t q = 0; q < queries.rows; ++q)
    PadQuery<C>(job, queries.row(q), nullptr, false, padded + q * stride);
  Dots<C, true>(d, job, padded, of, 0, scores);
}

template <class C, class D>
void AccumulateTokens(D d, PackedJob& job, MatView<const float> weights, MatView<float> out) {
  const MatView<float> scaled(job.take(weights.rows * weights.cols), weights.rows, weights.cols);
  for (int64_t q = 0; q < weights.rows; ++q)
    for (int64_t t = 0; t < weights.cols; ++t) scaled.at(q, t) = weights.at(q, t) * job.scales[t];
  Sums<C, false>(d, job, {}, 0, scaled, out);
  for (int64_t q = 0; q < weights.rows; ++q) {
    const float constant = DotOf(weights.row(q), job.zeros, weights.cols);
    float* row = out.row(q);
    for (int64_t c = 0; c < out.cols; ++c) row[c] += constant;
  }
}

template <class C, class D>
void AccumulateChannels(D d, PackedJob& job, MatView<const float> weights, MatView<float> out) {
  const PackedPage& page = job.page;
  const MatView<float> sums(job.take(out.rows * out.cols), out.rows, out.cols);
  for (int64_t t = 0; t < page.tokens; t += page.group) {
    const int64_t at = t / page.group * page.width;
    const MatView<const float> of_group = weights.col_range(t, std::min(page.group, page.tokens - t));
    std::fill_n(sums.data, sums.rows * sums.cols, 0.0f);
    Sums<C, false>(d, job, {}, t, of_group, sums);
    for (int64_t q = 0; q < out.rows; ++q) {
      const float total = SumOf(of_group.row(q), of_group.cols);
      AddScaled(sums.row(q), job.scales + at, job.zeros + at, total, out.row(q), out.cols);
    }
  }
}

// The codes of a row as floats.
template <class C, class D>
HWY_INLINE void DecodeRow(D d, const PackedJob& job, const uint8_t* row, float* out) {
  const int64_t step = static_cast<int64_t>(hn::Lanes(d));
  for (int64_t block = 0; block < job.shape.blocks(); ++block) {
    const int64_t plane = job.shape.lanes(block);
    for (int64_t lane = 0; lane < plane; lane += step) {
      const auto lanes = C::load(d, row + block * PackedShape::kLanes * C::kLaneBytes + lane, plane);
      for (int j = 0; j < C::kSlices; ++j) {
        const auto codes = hn::Mul(C::slice(d, lanes, j), hn::Set(d, C::unit(j)));
        const int64_t count = std::clamp<int64_t>(job.shape.channels(block, j) - lane, 0, step);
        if (count > 0) StoreFirst(d, codes, count, out + job.shape.first_channel(block, j) + lane);
      }
    }
  }
}

template <class C, class D>
void DecodeRows(D d, const PackedJob& job, int64_t first_token, MatView<float> rows) {
  const PackedPage& page = job.page;
  for (int64_t r = 0; r < rows.rows; ++r) {
    const int64_t t = first_token + r;
    float* HWY_RESTRICT row = rows.row(r);
    DecodeRow<C>(d, job, job.rows.row(t), row);
    if (page.axis == ScaleAxis::kChannel) {
      const float* HWY_RESTRICT scales = job.scales + t / page.group * page.width;
      const float* HWY_RESTRICT zeros = job.zeros + t / page.group * page.width;
      for (int64_t c = 0; c < page.width; ++c) row[c] = row[c] * scales[c] + zeros[c];
      continue;
    }
    for (int64_t g = 0; g < job.groups; ++g) {
      const float scale = job.scales[t * job.groups + g];
      const float zero = job.zeros[t * job.groups + g];
      const int64_t end = std::min(page.width, (g + 1) * page.group);
      for (int64_t c = g * page.group; c < end; ++c) row[c] = row[c] * scale + zero;
    }
  }
}

void Decode(const PackedJob& job, int64_t first_token, MatView<float> rows) {
  with_codes(job, [&](auto codes, auto d) { DecodeRows<decltype(codes)>(d, job, first_token, rows); });
}

void Scores(PackedJob job, MatView<const float> queries, MatView<float> scores) {
  with_codes(job, [&](auto codes, auto d) {
    using C = decltype(codes);
    if (job.page.axis == ScaleAxis::kChannel) return ScoreChannels<C>(d, job, queries, scores);
    if (job.groups == 1) return ScoreTokens<C>(d, job, queries, scores);
    ScoreSlices<C>(d, job, queries, scores);
  });
}

void Accumulate(PackedJob job, MatView<const float> weights, MatView<float> out) {
  with_codes(job, [&](auto codes, auto d) {
    using C = decltype(codes);
    if (job.page.axis == ScaleAxis::kChannel) return AccumulateChannels<C>(d, job, weights, out);
    if (job.groups == 1) return AccumulateTokens<C>(d, job, weights, out);
    Sums<C, true>(d, job, ScalesOfSlices<C>(job), 0, weights, out);
  });
}

}  // namespace HWY_NAMESPACE
}  // namespace kva
HWY_AFTER_NAMESPACE();

#if HWY_ONCE
namespace kva {
namespace {

HWY_EXPORT(Decode);
HWY_EXPORT(Scores);
HWY_EXPORT(Accumulate);

constexpr int64_t kTileTokens = 16;
constexpr int64_t kLoadRoom = 2 * PackedShape::kLanes;  // behind the copy of the last rows, and its rounding

int64_t groups_of_token(const PackedPage& page) {
  return page.axis == ScaleAxis::kToken ? (page.width + page.group - 1) / page.group : 1;
}

// Whether all channels of each slice share their scale, so that a vector needs only one.
bool slices_within_groups(const PackedJob& job) {
  if (job.groups == 1) return true;
  for (int64_t block = 0; block < job.shape.blocks(); ++block)
    for (int j = 0; j < job.shape.slices; ++j) {
      const int64_t first = job.shape.first_channel(block, j);
      const int64_t count = job.shape.channels(block, j);
      if (count > 0 && first / job.page.group != (first + count - 1) / job.page.group) return false;
    }
  return true;
}

// Copies the last rows that a load may read past. Needs row_bytes + kLoadRoom bytes.
PackedRows safe_rows(const PackedJob& job, std::byte* copy) {
  const auto* codes = reinterpret_cast<const uint8_t*>(job.page.codes);
  const int64_t row_bytes = job.shape.row_bytes();
  const int64_t past = job.shape.tail_lanes == 0 ? 0 : job.pad - job.shape.tail_lanes;
  const int64_t unsafe = std::min(job.page.tokens, (past + row_bytes - 1) / row_bytes);
  const int64_t split = job.page.tokens - unsafe;
  if (unsafe > 0) {
    std::memcpy(copy, codes + split * row_bytes, static_cast<std::size_t>(unsafe * row_bytes));
    std::memset(copy + unsafe * row_bytes, 0, static_cast<std::size_t>(past));
  }
  return {codes, reinterpret_cast<const uint8_t*>(copy), split, row_bytes};
}

PackedJob prepare(const PackedPage& page, float* scratch) {
  PackedJob job;
  job.page = page;
  job.shape = PackedShape(page.bits, page.width);
  job.groups = groups_of_token(page);
  job.scratch = scratch;
  if (job.shape.full_blocks == 0 && job.shape.tail_lanes <= 8) job.pad = 8;
  const int64_t count = packed_scales(page.axis, page.group, page.tokens, page.width);
  float* scales = job.take(count);
  float* zeros = job.take(count);
  to_f32(page.scales, DType::kF16, scales, count);
  if (page.zeros) {
    to_f32(page.zeros, DType::kF16, zeros, count);
  } else {
    const float middle = -static_cast<float>(1 << (page.bits - 1));
    for (int64_t i = 0; i < count; ++i) zeros[i] = middle * scales[i];
  }
  job.scales = scales;
  job.zeros = zeros;
  job.rows =
      safe_rows(job, reinterpret_cast<std::byte*>(job.take((job.shape.row_bytes() + kLoadRoom + 3) / 4)));
  return job;
}

// Calls body(first token, decoded rows) for tiles of a page.
template <class Body>
void for_tiles(PackedJob& job, const Body& body) {
  float* tile = job.take(kTileTokens * job.page.width);
  for (int64_t t = 0; t < job.page.tokens; t += kTileTokens) {
    const MatView<float> rows(tile, std::min(kTileTokens, job.page.tokens - t), job.page.width);
    HWY_DYNAMIC_DISPATCH(Decode)(job, t, rows);
    body(t, rows);
  }
}

}  // namespace

int64_t packed_scratch(int64_t queries, const PackedPage& shape) {
  const PackedShape row(shape.bits, shape.width);
  const int64_t slices = row.blocks() * row.slices;
  int64_t values = 2 * packed_scales(shape.axis, shape.group, shape.tokens, shape.width);
  values += (row.row_bytes() + kLoadRoom + 3) / 4;
  values += queries * std::max({slices * PackedShape::kLanes, shape.tokens, shape.width});
  if (groups_of_token(shape) > 1) values += std::max(2 * shape.tokens * slices, kTileTokens * shape.width);
  return values;
}

void packed_decode(const PackedPage& page, float* scratch, MatView<float> rows) {
  KVA_CHECK(rows.rows == page.tokens && rows.cols == page.width, "rows of another shape than the page");
  if (page.tokens == 0) return;
  HWY_DYNAMIC_DISPATCH(Decode)(prepare(page, scratch), 0, rows);
}

void packed_scores(MatView<const float> queries, const PackedPage& page, float* scratch,
                   MatView<float> scores) {
  KVA_CHECK(scores.rows == queries.rows && scores.cols == page.tokens && queries.cols == page.width,
            "queries and scores of another shape than the page");
  if (page.tokens == 0) return;
  PackedJob job = prepare(page, scratch);
  if (slices_within_groups(job)) return HWY_DYNAMIC_DISPATCH(Scores)(job, queries, scores);
  for_tiles(job, [&](int64_t t, MatView<const float> rows) {
    dense_scores(queries, rows.data, DType::kF32, scores.col_range(t, rows.rows));
  });
}

void packed_accumulate(MatView<const float> weights, const PackedPage& page, float* scratch,
                       MatView<float> out) {
  KVA_CHECK(weights.rows == out.rows && weights.cols == page.tokens && out.cols == page.width,
            "weights and sums of another shape than the page");
  if (page.tokens == 0) return;
  PackedJob job = prepare(page, scratch);
  if (slices_within_groups(job)) return HWY_DYNAMIC_DISPATCH(Accumulate)(job, weights, out);
  for_tiles(job, [&](int64_t t, MatView<const float> rows) {
    dense_accumulate(weights.col_range(t, rows.rows), rows.data, DType::kF32, out);
  });
}

}  // namespace kva
#endif
