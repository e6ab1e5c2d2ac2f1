// Sides of several parts (has_parts()), by one warp: f16 tokens before codes, a low-rank part beside them.
// Only the kernels that read everything have this code.
#pragma once

#include <cmath>
#include <cstdint>

#include "kernels/attention_keys.h"
#include "kernels/attention_values.h"
#include "kernels/decoder_lanes.h"
#include "kernels/side_kinds.h"

namespace kva {

// The part of a page that its codes are of.
KVA_LANE_CODE inline SidePage coded_part(const SidePage& page) {
  SidePage codes = page;
  codes.tokens -= page.format->front;
  return codes;
}

// scores[r * stride + t] = query r · token t for the tokens in front.
template <class Warp>
KVA_LANE_CODE void score_front(Warp& warp, const SidePage& page, const float* queries, float* scores,
                               int32_t stride) {
  if (page.format->front == 0) return;
  const SidePage front{page.format, page.payload, page.format->front};
  score_tokens<SideKind::kF16, false>(warp, front, queries, scores, stride);
}

// Adds (queries Bᵀ) Aᵀ, A being the low-rank part's left side and B its right one.
template <class Warp>
KVA_LANE_CODE void score_low_rank(Warp& warp, const SidePage& page, const float* queries, float* scores,
                                  int32_t stride) {
  const SideFormat& format = *page.format;
  for (int32_t i = 0; i < format.rank; ++i) {
    float coordinates[kItemRows] = {};
    for (int32_t c = warp.lane(); c < format.width; c += 32) {
      const float right = f16_at(page.payload, format.right_at, i * format.width + c);
      KVA_UNROLL
      for (int r = 0; r < kItemRows; ++r)
        coordinates[r] = fmaf(queries[r * format.width + c], right, coordinates[r]);
    }
    KVA_UNROLL
    for (int r = 0; r < kItemRows; ++r) coordinates[r] = warp_sum(warp, coordinates[r]);
    for (int32_t t = warp.lane(); t < page.tokens; t += 32) {
      const float left = f16_at(page.payload, format.left_at, i * page.tokens + t);
      KVA_UNROLL
      for (int r = 0; r < kItemRows; ++r)
        scores[r * stride + t] = fmaf(coordinates[r], left, scores[r * stride + t]);
    }
  }
  warp.sync();
}

// What the low-rank part has of one number.
KVA_LANE_CODE inline float low_rank_number(const SidePage& page, int32_t token, int32_t channel) {
  const SideFormat& format = *page.format;
  float number = 0.0f;
  for (int32_t i = 0; i < format.rank; ++i)
    number = fmaf(f16_at(page.payload, format.left_at, i * page.tokens + token),
                  f16_at(page.payload, format.right_at, i * format.width + channel), number);
  return number;
}

// sums += weights[r * stride + t] * token t for the tokens in front, in the lanes' places of the codes' kind.
template <class Warp>
KVA_LANE_CODE void add_front(Warp& warp, const SidePage& page, const UnitPlaces& places, const float* weights,
                             int32_t stride, ValueSums& sums) {
  const int32_t width = page.format->width;
  const LaneSplit split = lane_split(width);
  if (warp.lane() % split.lanes * kUnit >= width) return;
  for (int32_t token = warp.lane() / split.lanes; token < page.format->front; token += split.rows) {
    KVA_UNROLL
    for (int j = 0; j < kUnit; ++j) {
      const float value = f16_at(page.payload, 0, token * width + places.place(j));
      KVA_UNROLL
      for (int r = 0; r < kItemRows; ++r) sums[r][j] = fmaf(weights[r * stride + token], value, sums[r][j]);
    }
  }
}

// Adds (weights A) B.
template <class Warp>
KVA_LANE_CODE void add_low_rank(Warp& warp, const SidePage& page, const UnitPlaces& places,
                                const float* weights, int32_t stride, ValueSums& sums) {
  const SideFormat& format = *page.format;
  const bool owns = warp.lane() < lane_split(format.width).lanes && warp.lane() * kUnit < format.width;
  for (int32_t i = 0; i < format.rank; ++i) {
    float coordinates[kItemRows] = {};
    for (int32_t t = warp.lane(); t < page.tokens; t += 32) {
      const float left = f16_at(page.payload, format.left_at, i * page.tokens + t);
      KVA_UNROLL
      for (int r = 0; r < kItemRows; ++r)
        coordinates[r] = fmaf(weights[r * stride + t], left, coordinates[r]);
    }
    KVA_UNROLL
    for (int r = 0; r < kItemRows; ++r) coordinates[r] = warp_sum(warp, coordinates[r]);
    if (!owns) continue;
    KVA_UNROLL
    for (int j = 0; j < kUnit; ++j) {
      const float right = f16_at(page.payload, format.right_at, i * format.width + places.place(j));
      KVA_UNROLL
      for (int r = 0; r < kItemRows; ++r) sums[r][j] = fmaf(coordinates[r], right, sums[r][j]);
    }
  }
}

// Where the channels of a lane's unit are, whatever the kind.
template <class Warp>
struct FindPlaces {
  Warp& warp;
  int32_t width;
  UnitPlaces places = {};

  template <SideKind kind>
  KVA_LANE_CODE void run() {
    places = value_places<kind>(width, warp.lane());
  }
};

// Adds what a page of values has beside its codes. Before those, which may change the weights.
template <class Warp, class Kind>
KVA_LANE_CODE void add_parts(Warp& warp, const SidePage& page, Kind kind, const float* weights,
                             int32_t stride, ValueSums& sums) {
  FindPlaces<Warp> find{warp, page.format->width};
  with_token_kind(kind, find);
  add_front(warp, page, find.places, weights, stride, sums);
  add_low_rank(warp, page, find.places, weights, stride, sums);
  warp.sync();
}

}  // namespace kva
