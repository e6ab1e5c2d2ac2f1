#include <algorithm>
#include <cstring>

#include "kernels/check.h"
#include "kernels/convert.h"
#include "kernels/dense_rows.h"
#include "kernels/fetch.h"
#include "kernels/packed.h"
#include "kernels/packed_job.h"
#include "kernels/packed_whole.h"
#include "kernels/transpose.h"

#undef HWY_TARGET_INCLUDE
#define HWY_TARGET_INCLUDE "kernels/packed_cpu.cc"
#include <hwy/foreach_target.h>
#include <hwy/highway.h>

#include "kernels/packed-inl.h"

HWY_BEFORE_NAMESPACE();
namespace kva {
namespace HWY_NAMESPACE {

// scaled[i] = weights[i] * scales[i]; returns the sum of weights[i] * zeros[i].
float ScaleWeights(const float* HWY_RESTRICT weights, const float* HWY_RESTRICT scales,
                   const float* HWY_RESTRICT zeros, float* HWY_RESTRICT scaled, int64_t count) {
  const hn::ScalableTag<float> d;
  const int64_t lanes = static_cast<int64_t>(hn::Lanes(d));
  auto sums = hn::Zero(d);
  int64_t i = 0;
  for (; i + lanes <= count; i += lanes) {
    const auto weight = hn::LoadU(d, weights + i);
    hn::StoreU(hn::Mul(weight, hn::LoadU(d, scales + i)), d, scaled + i);
    sums = hn::MulAdd(weight, hn::LoadU(d, zeros + i), sums);
  }
  float sum = hn::GetLane(hn::SumOfLanes(d, sums));
  for (; i < count; ++i) {
    scaled[i] = weights[i] * scales[i];
    sum += weights[i] * zeros[i];
  }
  return sum;
}

float SumOf(const float* values, int64_t count) {
  const hn::ScalableTag<float> d;
  const int64_t lanes = static_cast<int64_t>(hn::Lanes(d));
  auto sums = hn::Zero(d);
  int64_t i = 0;
  for (; i + lanes <= count; i += lanes) sums = hn::Add(hn::LoadU(d, values + i), sums);
  float sum = hn::GetLane(hn::SumOfLanes(d, sums));
  for (; i < count; ++i) sum += values[i];
  return sum;
}

void AddConstant(float constant, float* values, int64_t count) {
  for (int64_t i = 0; i < count; ++i) values[i] += constant;
}

// Calls body(tag, Codes<bits>() or Levels<bits>()): full vectors, or half ones where rows are short.
template <class Body>
HWY_INLINE void with_codes(const PackedJob& job, const Body& body) {
  const auto with_codes_of = [&](auto d) {
    WithCodes(d, job.page, [&](const auto& codes) { body(d, codes); });
  };
  const hn::CappedTag<float, 16> full;
  if constexpr (hn::MaxLanes(full) > 8) {
    if (!job.wide) return with_codes_of(hn::CappedTag<float, 8>());
  }
  with_codes_of(full);
}

// The rows' scales go into the weights, once for each group of columns.
template <class D, class C>
void ProductByRow(D d, const C& codes, PackedJob& job, MatView<const float> left, MatView<float> out) {
  const int64_t rows = left.cols;
  WeightedRows of{.count = rows, .left_stride = rows, .group_stride = left.rows * rows};
  float* weights = job.take(job.groups * of.group_stride);
  of.weights = weights;
  for (int64_t g = 0; g < job.groups; ++g) {
    const int64_t first = g * job.group;
    const int64_t count = std::min(job.group, out.cols - first);
    for (int64_t q = 0; q < left.rows; ++q, weights += rows)
      AddConstant(ScaleWeights(left.row(q), job.scales + g * rows, job.zeros + g * rows, weights, rows),
                  out.row(q) + first, count);
  }
  if (job.groups == 1) return Sums<C, false>(d, codes, job, of, out);
  Sums<C, true>(d, codes, job, of, out);
}

// The columns' scales go into the sums, once for each group of rows.
template <class D, class C>
void ProductByColumn(D d, const C& codes, PackedJob& job, MatView<const float> left, MatView<float> out) {
  float* totals = job.take(left.rows);
  for (int64_t g = 0; g < job.groups; ++g) {
    const int64_t first = g * job.group;
    const int64_t count = std::min(job.group, left.cols - first);
    for (int64_t q = 0; q < left.rows; ++q) totals[q] = SumOf(left.row(q) + first, count);
    Sums<C, false>(d, codes, job,
                   {.first = first,
                    .count = count,
                    .weights = left.data + first,
                    .left_stride = left.stride,
                    .scales = job.scales + g * out.cols,
                    .zeros = job.zeros + g * out.cols,
                    .totals = totals},
                   out);
  }
}

void Product(PackedJob& job, MatView<const float> left, MatView<float> out) {
  with_codes(job, [&](auto d, const auto& codes) {
    if (job.scale_by_row) return ProductByRow(d, codes, job, left, out);
    ProductByColumn(d, codes, job, left, out);
  });
}

// Reads a row as floats: store(codes over unit, unit, how many of the vector count, first column) for each
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
void DecodeRows(D d, const C& codes, const PackedJob& job, MatView<float> out) {
  for (int64_t r = 0; r < out.rows; ++r) {
    float* HWY_RESTRICT row = out.row(r);
    if (!job.scale_by_row) {
      const int64_t at = job.groups == 1 ? 0 : r / job.group * job.cols;
      const float* HWY_RESTRICT scales = job.scales + at;
      const float* HWY_RESTRICT zeros = job.zeros + at;
      DecodeRow(d, codes, job.shape, job.row(r),
                [&](auto values, float unit, int64_t count, int64_t column) HWY_ATTR {
                  const auto scale = LoadFirst(d, scales + column, count);
                  const auto zero = LoadFirst(d, zeros + column, count);
                  StoreFirst(d, hn::MulAdd(hn::Mul(values, hn::Set(d, unit)), scale, zero), count,
                             row + column);
                });
      continue;
    }
    // With one group its scale and zero, else codes alone.
    const float one_scale = job.groups == 1 ? job.scales[r] : 1.0f;
    const auto zero = hn::Set(d, job.groups == 1 ? job.zeros[r] : 0.0f);
    DecodeRow(d, codes, job.shape, job.row(r),
              [&](auto values, float unit, int64_t count, int64_t column) HWY_ATTR {
                StoreFirst(d, hn::MulAdd(values, hn::Set(d, one_scale * unit), zero), count, row + column);
              });
    for (int64_t g = 0; g < job.groups && job.groups > 1; ++g) {
      const float scale = job.scales[g * job.rows + r];
      const float zero_of_group = job.zeros[g * job.rows + r];
      const int64_t end = std::min(job.cols, (g + 1) * job.group);
      for (int64_t c = g * job.group; c < end; ++c) row[c] = row[c] * scale + zero_of_group;
    }
  }
}

void Decode(const PackedJob& job, MatView<float> out) {
  with_codes(job, [&](auto d, const auto& codes) { DecodeRows(d, codes, job, out); });
}

}  // namespace HWY_NAMESPACE
}  // namespace kva
HWY_AFTER_NAMESPACE();

#if HWY_ONCE
namespace kva {
namespace {

HWY_EXPORT(Decode);
HWY_EXPORT(Product);

// Behind the copy of the last rows, and what those have more than one row.
constexpr int64_t kLoadRoom = 2 * PackedShape::kLanes;

// Whether all columns of each slice share their scale, so that a vector needs only one weight.
bool slices_within_groups(const PackedJob& job) {
  if (!job.scale_by_row || job.groups == 1) return true;
  for (int64_t block = 0; block < job.shape.blocks(); ++block)
    for (int j = 0; j < job.shape.slices; ++j) {
      const int64_t first = job.shape.first_channel(block, j);
      const int64_t count = job.shape.channels(block, j);
      if (count > 0 && first / job.group != (first + count - 1) / job.group) return false;
    }
  return true;
}

// Reads the rows [tokens, width] of a page.
void decode(const PackedPage& page, float* scratch, MatView<float> rows) {
  PackedJob job(page, scratch);
  if (!page.by_channel) return HWY_DYNAMIC_DISPATCH(Decode)(job, rows);
  const MatView<float> channels(job.take(page.width * page.tokens), page.width, page.tokens);
  HWY_DYNAMIC_DISPATCH(Decode)(job, channels);
  transpose(channels, rows);
}

// out += left · matrix, in registers; false: where its groups do not allow that.
bool add_product(const PackedPage& page, MatView<const float> left, float* scratch, MatView<float> out) {
  PackedJob job(page, scratch);
  if (!slices_within_groups(job)) return false;
  HWY_DYNAMIC_DISPATCH(Product)(job, left, out);
  return true;
}

}  // namespace

PackedJob::PackedJob(const PackedPage& page_, float* scratch_)
    : page(page_),
      rows(page_.by_channel ? page_.width : page_.tokens),
      cols(page_.by_channel ? page_.tokens : page_.width),
      shape(page_.bits, cols),
      scale_by_row(page_.by_channel == (page_.axis == ScaleAxis::kChannel)),
      group(page_.group),
      groups(page_.groups()),
      scratch(scratch_),
      row_bytes(shape.row_bytes()),
      split(rows),
      front(reinterpret_cast<const uint8_t*>(page_.codes)),
      back(nullptr),
      wide(shape.full_blocks > 0 || shape.tail_lanes > 8) {
  const int64_t count = page.scale_count();
  scales = take(count);
  zeros = take(count);
  packed_scales(page, page.scales, scales);
  if (page.zeros) {
    packed_scales(page, page.zeros, zeros);
  } else {
    for (int64_t i = 0; i < count; ++i) zeros[i] = page.middle() * scales[i];
  }
  if (shape.tail_lanes == 0) return;
  const int64_t past = (wide ? 16 : 8) - shape.tail_lanes;
  const int64_t copied = std::min(rows, (past + row_bytes - 1) / row_bytes);
  auto* copy = reinterpret_cast<std::byte*>(take((row_bytes + kLoadRoom + 3) / 4));
  split = rows - copied;
  back = reinterpret_cast<const uint8_t*>(copy);
  if (copied == 0) return;
  std::memcpy(copy, page.codes + split * row_bytes, static_cast<std::size_t>(copied * row_bytes));
  std::memset(copy + copied * row_bytes, 0, static_cast<std::size_t>(past));
}

int64_t packed_scratch(int64_t queries, const PackedPage& shape) {
  const int64_t rows = shape.by_channel ? shape.width : shape.tokens;
  const int64_t cols = shape.by_channel ? shape.tokens : shape.width;
  const int64_t of_job = 2 * shape.scale_count() + (packed_row_bytes(shape.bits, cols) + kLoadRoom + 3) / 4;
  const int64_t of_product = queries * shape.groups() * std::max<int64_t>(rows, 1);
  const int64_t of_whole = whole_scratch(queries, rows);
  // A decoded page, and what decoding it takes where its rows are channels.
  const int64_t of_decoding = shape.tokens * shape.width * (shape.by_channel ? 2 : 1);
  return std::max(of_whole, of_job + std::max(of_product, of_decoding));
}

void packed_decode(const PackedPage& page, float* scratch, MatView<float> rows) {
  KVA_CHECK(rows.rows == page.tokens && rows.cols == page.width, "rows of another shape than the page");
  if (page.tokens > 0 && page.width > 0) decode(page, scratch, rows);
}

void packed_scores(MatView<const float> queries, const PackedPage& page, float* scratch,
                   MatView<float> scores) {
  KVA_CHECK(scores.rows == queries.rows && scores.cols == page.tokens && queries.cols == page.width,
            "queries and scores of another shape than the page");
  if (page.tokens == 0 || page.width == 0) return;
  if (page.by_channel && whole_product(page, queries, false, scratch, scores)) return;
  fetch(page.ahead, page.code_bytes());
  for (int64_t q = 0; q < scores.rows; ++q) std::fill_n(scores.row(q), scores.cols, 0.0f);
  if (page.by_channel && add_product(page, queries, scratch, scores)) return;
  const MatView<float> rows(scratch, page.tokens, page.width);
  decode(page, scratch + page.tokens * page.width, rows);
  dense_scores(queries, rows.data, DType::kF32, scores);
}

void packed_accumulate(MatView<const float> weights, const PackedPage& page, float* scratch,
                       MatView<float> out) {
  KVA_CHECK(weights.rows == out.rows && weights.cols == page.tokens && out.cols == page.width,
            "weights and sums of another shape than the page");
  if (page.tokens == 0 || page.width == 0) return;
  if (!page.by_channel && whole_product(page, weights, true, scratch, out)) return;
  fetch(page.ahead, page.code_bytes());
  if (!page.by_channel && add_product(page, weights, scratch, out)) return;
  const MatView<float> rows(scratch, page.tokens, page.width);
  decode(page, scratch + page.tokens * page.width, rows);
  dense_accumulate(weights, rows.data, DType::kF32, out);
}

}  // namespace kva
#endif
