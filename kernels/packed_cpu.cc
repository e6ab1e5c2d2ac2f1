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

// Calls body(tag, Codes<bits>() or Levels<bits>()): full vectors, but none wider than a padded slice.
template <int bits, class Body>
HWY_INLINE void with_tag(const PackedJob& job, const Body& body) {
  const auto with_codes_of = [&](auto d) {
    if (job.page.levels) return body(d, Levels<bits, decltype(d)>(d, job.page.levels));
    body(d, Codes<bits>());
  };
  const hn::CappedTag<float, 16> full;
  if constexpr (hn::MaxLanes(full) > 8) {
    if (job.pad < static_cast<int64_t>(hn::Lanes(full))) return with_codes_of(hn::CappedTag<float, 8>());
  }
  with_codes_of(full);
}

template <class Body>
HWY_INLINE void with_codes(const PackedJob& job, const Body& body) {
  switch (job.shape.bits) {
    case 2: return with_tag<2>(job, body);
    case 3: return with_tag<3>(job, body);
    case 4: return with_tag<4>(job, body);
    default: return with_tag<8>(job, body);
  }
}

template <class D, class C>
void ScoreTokens(D d, const C& codes, PackedJob& job, MatView<const float> queries, MatView<float> scores) {
  const int64_t stride = job.slices() * job.pad;
  float* padded = job.take(queries.rows * stride);
  for (int64_t q = 0; q < queries.rows; ++q)
    PadQuery<C>(d, job, queries.row(q), nullptr, true, padded + q * stride);
  Dots<C, false>(d, codes, job, padded, {}, 0, scores);
  for (int64_t q = 0; q < queries.rows; ++q) {
    const float sum = SumOf(queries.row(q), queries.cols);
    const float* HWY_RESTRICT scales = job.scales;
    const float* HWY_RESTRICT zeros = job.zeros;
    float* HWY_RESTRICT row = scores.row(q);
    for (int64_t t = 0; t < scores.cols; ++t) row[t] = row[t] * scales[t] + sum * zeros[t];
  }
}

template <class D, class C>
void ScoreChannels(D d, const C& codes, PackedJob& job, MatView<const float> queries, MatView<float> scores) {
  const int64_t stride = job.slices() * job.pad;
  float* padded = job.take(queries.rows * stride);
  const PackedPage& page = job.page;
  int64_t at = 0;  // of the group's scales
  for (int64_t t = 0; t < page.tokens; t += page.group, at += page.width) {
    for (int64_t q = 0; q < queries.rows; ++q)
      PadQuery<C>(d, job, queries.row(q), job.scales + at, true, padded + q * stride);
    const MatView<float> of_group = scores.col_range(t, std::min(page.group, page.tokens - t));
    Dots<C, false>(d, codes, job, padded, {}, t, of_group);
    for (int64_t q = 0; q < queries.rows; ++q) {
      const float constant = DotOf(queries.row(q), job.zeros + at, page.width);
      float* row = of_group.row(q);
      for (int64_t i = 0; i < of_group.cols; ++i) row[i] += constant;
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

template <class D, class C>
void ScoreSlices(D d, const C& codes, PackedJob& job, MatView<const float> queries, MatView<float> scores) {
  const SliceScales of = ScalesOfSlices<C>(job);
  const int64_t stride = job.slices() * job.pad;
  float* padded = job.take(queries.rows * stride);
  for (int64_t q = 0; q < queries.rows; ++q)
    PadQuery<C>(d, job, queries.row(q), nullptr, false, padded + q * stride);
  Dots<C, true>(d, codes, job, padded, of, 0, scores);
}

template <class D, class C>
void AccumulateTokens(D d, const C& codes, PackedJob& job, MatView<const float> weights, MatView<float> out) {
  const MatView<float> scaled(job.take(weights.rows * weights.cols), weights.rows, weights.cols);
  for (int64_t q = 0; q < weights.rows; ++q) {
    const float* HWY_RESTRICT from = weights.row(q);
    const float* HWY_RESTRICT scales = job.scales;
    float* HWY_RESTRICT to = scaled.row(q);
    for (int64_t t = 0; t < weights.cols; ++t) to[t] = from[t] * scales[t];
  }
  Sums<C, false>(d, codes, job, {}, 0, scaled, out);
  for (int64_t q = 0; q < weights.rows; ++q) {
    const float constant = DotOf(weights.row(q), job.zeros, weights.cols);
    float* row = out.row(q);
    for (int64_t c = 0; c < out.cols; ++c) row[c] += constant;
  }
}

template <class D, class C>
void AccumulateChannels(D d, const C& codes, PackedJob& job, MatView<const float> weights,
                        MatView<float> out) {
  const PackedPage& page = job.page;
  const MatView<float> sums(job.take(out.rows * out.cols), out.rows, out.cols);
  int64_t at = 0;  // of the group's scales
  for (int64_t t = 0; t < page.tokens; t += page.group, at += page.width) {
    const MatView<const float> of_group = weights.col_range(t, std::min(page.group, page.tokens - t));
    std::fill_n(sums.data, sums.rows * sums.cols, 0.0f);
    Sums<C, false>(d, codes, job, {}, t, of_group, sums);
    for (int64_t q = 0; q < out.rows; ++q) {
      const float total = SumOf(of_group.row(q), of_group.cols);
      AddScaled(sums.row(q), job.scales + at, job.zeros + at, total, out.row(q), out.cols);
    }
  }
}

// Reads a row as floats: store(codes over unit, unit, how many of the vector count, first channel) for each
// slice of each vector of lanes.
template <class D, class C, class Store>
HWY_INLINE void DecodeRow(D d, const C& codes, const PackedShape& shape, const uint8_t* row,
                          const Store& store) {
  const auto step = static_cast<int64_t>(hn::Lanes(d));
  for (int64_t block = 0; block < shape.full_blocks; ++block) {
    for (int64_t lane = 0; lane < PackedShape::kLanes; lane += step) {
      const auto lanes =
          C::load(d, row + block * PackedShape::kLanes * C::kLaneBytes + lane, PackedShape::kLanes);
#pragma GCC unroll 8
      for (int j = 0; j < C::kSlices; ++j)
        store(codes.slice(d, lanes, j), C::unit(j), step,
              (block * C::kSlices + j) * PackedShape::kLanes + lane);
    }
  }
  if (shape.tail_lanes == 0) return;
  const int64_t block = shape.full_blocks;
  for (int64_t lane = 0; lane < shape.tail_lanes; lane += step) {
    const auto lanes = C::load(d, row + block * PackedShape::kLanes * C::kLaneBytes + lane, shape.tail_lanes);
    for (int j = 0; j < C::kSlices; ++j) {
      const int64_t count = std::min<int64_t>(shape.channels(block, j) - lane, step);
      if (count > 0) store(codes.slice(d, lanes, j), C::unit(j), count, shape.first_channel(block, j) + lane);
    }
  }
}

template <class D, class C>
void DecodeRows(D d, const C& codes, const PackedJob& job, int64_t first_token, MatView<float> rows) {
  const PackedPage& page = job.page;
  for (int64_t r = 0; r < rows.rows; ++r) {
    const int64_t t = first_token + r;
    float* HWY_RESTRICT out = rows.row(r);
    if (page.axis == ScaleAxis::kChannel) {
      const int64_t at = page.group >= page.tokens ? 0 : t / page.group * page.width;
      const float* HWY_RESTRICT scales = job.scales + at;
      const float* HWY_RESTRICT zeros = job.zeros + at;
      DecodeRow(d, codes, job.shape, job.rows.row(t),
                [&](auto values, float unit, int64_t count, int64_t channel) HWY_ATTR {
                  const auto scale = LoadFirst(d, scales + channel, count);
                  const auto zero = LoadFirst(d, zeros + channel, count);
                  StoreFirst(d, hn::MulAdd(hn::Mul(values, hn::Set(d, unit)), scale, zero), count,
                             out + channel);
                });
      continue;
    }
    // With one group its scale and zero, else codes alone.
    const float one_scale = job.groups == 1 ? job.scales[t] : 1.0f;
    const auto zero = hn::Set(d, job.groups == 1 ? job.zeros[t] : 0.0f);
    DecodeRow(d, codes, job.shape, job.rows.row(t),
              [&](auto values, float unit, int64_t count, int64_t channel) HWY_ATTR {
                StoreFirst(d, hn::MulAdd(values, hn::Set(d, one_scale * unit), zero), count, out + channel);
              });
    for (int64_t g = 0; g < job.groups && job.groups > 1; ++g) {
      const float scale = job.scales[t * job.groups + g];
      const float zero_of_group = job.zeros[t * job.groups + g];
      const int64_t end = std::min(page.width, (g + 1) * page.group);
      for (int64_t c = g * page.group; c < end; ++c) out[c] = out[c] * scale + zero_of_group;
    }
  }
}

void Decode(const PackedJob& job, int64_t first_token, MatView<float> rows) {
  with_codes(job, [&](auto d, const auto& codes) { DecodeRows(d, codes, job, first_token, rows); });
}

void Scores(PackedJob job, MatView<const float> queries, MatView<float> scores) {
  with_codes(job, [&](auto d, const auto& codes) {
    if (job.page.axis == ScaleAxis::kChannel) return ScoreChannels(d, codes, job, queries, scores);
    if (job.groups == 1) return ScoreTokens(d, codes, job, queries, scores);
    ScoreSlices(d, codes, job, queries, scores);
  });
}

void Accumulate(PackedJob job, MatView<const float> weights, MatView<float> out) {
  with_codes(job, [&](auto d, const auto& codes) {
    using C = std::decay_t<decltype(codes)>;
    if (job.page.axis == ScaleAxis::kChannel) return AccumulateChannels(d, codes, job, weights, out);
    if (job.groups == 1) return AccumulateTokens(d, codes, job, weights, out);
    Sums<C, true>(d, codes, job, ScalesOfSlices<C>(job), 0, weights, out);
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
  if (job.shape.tail_lanes == 0) return {codes, nullptr, job.page.tokens, row_bytes};
  const int64_t past = job.pad - job.shape.tail_lanes;
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
  job.groups = page.axis == ScaleAxis::kToken ? page.groups() : 1;
  job.scratch = scratch;
  if (job.shape.full_blocks == 0 && job.shape.tail_lanes <= 8) job.pad = 8;
  const int64_t count = page.scale_count();
  float* scales = job.take(count);
  float* zeros = job.take(count);
  to_f32(page.scales, DType::kF16, scales, count);
  if (page.zeros) {
    to_f32(page.zeros, DType::kF16, zeros, count);
  } else if (page.levels) {
    std::fill_n(zeros, count, 0.0f);
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
  int64_t values = 2 * shape.scale_count();
  values += (row.row_bytes() + kLoadRoom + 3) / 4;
  values += queries * std::max({slices * PackedShape::kLanes, shape.tokens, shape.width});
  if (shape.axis == ScaleAxis::kToken && shape.groups() > 1)
    values += std::max(2 * shape.tokens * slices, kTileTokens * shape.width);
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
