// Weighted sums of one page's values for the query rows of an attention item, by one warp (its concept is in
// kernels/attention_keys.h). A lane sums one unit of channels over some of the tokens; the lanes of a unit
// meet once, at the end of the item.
#pragma once

#include <cmath>
#include <cstdint>

#include "kernels/attention_keys.h"

namespace kva {

using ValueSums = float[kItemRows][kUnit];

// sums += weights[r * stride + t] * token t. kSharedScales: units_share_scales().
template <SideKind kind, bool kSharedScales, class Warp>
KVA_LANE_CODE void add_tokens(Warp& warp, const SidePage& page, const float* weights, int32_t stride,
                              ValueSums& sums) {
  const LaneSplit split = lane_split(page.format->width);
  const int32_t unit = warp.lane() % split.lanes;
  const int32_t row = warp.lane() / split.lanes;
  if (unit * kUnit >= page.format->width) return;  // nothing below needs the other lanes
  const TokenUnits<kind> units(page, unit);
  float zeros[kItemRows] = {};
  constexpr int kAhead = is_packed(kind) && !kSharedScales ? 4 : units_ahead(kind);
  for (int32_t first = row; first < page.tokens; first += kAhead * split.rows) {
    RawUnit raw[kAhead];
    KVA_UNROLL
    for (int i = 0; i < kAhead; ++i) raw[i] = units.load(page.clipped(first + i * split.rows));
    KVA_UNROLL
    for (int i = 0; i < kAhead; ++i) {
      const int32_t token = first + i * split.rows;
      if (token >= page.tokens) break;
      float value[kUnit];
      units.template numbers<kSharedScales>(raw[i], token, value);
      CodeScale one = {1.0f, 0.0f};
      if constexpr (kSharedScales) one = units.scale(token);
      KVA_UNROLL
      for (int r = 0; r < kItemRows; ++r) {
        const float weight = weights[r * stride + token] * one.scale;
        if constexpr (kSharedScales) zeros[r] = fmaf(weights[r * stride + token], one.zero, zeros[r]);
        KVA_UNROLL
        for (int j = 0; j < kUnit; ++j) sums[r][j] = fmaf(weight, value[j], sums[r][j]);
      }
    }
  }
  if constexpr (kSharedScales) {
    KVA_UNROLL
    for (int r = 0; r < kItemRows; ++r) {
      KVA_UNROLL
      for (int j = 0; j < kUnit; ++j) sums[r][j] += zeros[r];
    }
  }
}

// Where the channels of a lane's unit are.
template <SideKind kind>
KVA_LANE_CODE UnitPlaces value_places(int32_t width, int lane) {
  return unit_address<kind>(width, lane % lane_split(width).lanes).places;
}

// Calls body(token, channel, number) for all that a packed page keeps beside its codes.
template <class Body>
KVA_LANE_CODE inline void for_kept(const SidePage& page, const Body& body) {
  const SideFormat& format = *page.format;
  for (int32_t i = 0; i < format.outliers; ++i) {
    const auto place =
        static_cast<int32_t>(listed_place(page.payload + format.places_at, format.place_bits, i));
    const int32_t token = place / format.width;
    body(token, place - token * format.width, f16_at(page.payload, format.outlier_values_at, i));
  }
  const auto* channels = reinterpret_cast<const uint16_t*>(page.payload + format.channels_at);
  for (int32_t i = 0; i < format.dense_channels; ++i)
    for (int32_t token = 0; token < page.tokens; ++token)
      body(token, channels[i], f16_at(page.payload, format.channel_values_at, i * page.tokens + token));
}

// Adds what is kept beside a packed side's codes: the lane that owns a channel adds its numbers.
template <bool kLevels, class Warp>
KVA_LANE_CODE void add_kept(Warp& warp, const SidePage& page, const UnitPlaces& places, const float* weights,
                            int32_t stride, ValueSums& sums) {
  const SideFormat& format = *page.format;
  const int32_t width = format.width;
  const LaneSplit split = lane_split(width);
  const bool owns = warp.lane() < split.lanes && warp.lane() * kUnit < width;
  for_kept(page, [&](int32_t token, int32_t channel, float number) {
    const float beyond_code = number - left_code_value<kLevels>(page, token, channel);
    KVA_UNROLL
    for (int j = 0; j < kUnit; ++j) {
      if (!owns || places.place(j) != channel) continue;
      KVA_UNROLL
      for (int r = 0; r < kItemRows; ++r) sums[r][j] += weights[r * stride + token] * beyond_code;
    }
  });
}

// weights of a page's tokens times what the tokens are multiplied by.
template <class Warp>
KVA_LANE_CODE void scale_weights(Warp& warp, const SidePage& page, float* weights, int32_t stride) {
  for (int32_t token = warp.lane(); token < page.tokens; token += 32) {
    const float factor = f16_at(page.payload, page.format->factors_at, token);
    KVA_UNROLL
    for (int r = 0; r < kItemRows; ++r) weights[r * stride + token] *= factor;
  }
  warp.sync();
}

// Adds one page. weights are changed where the format has factors.
template <SideKind kind, class Warp>
KVA_LANE_CODE void add_page_of(Warp& warp, const SidePage& page, float* weights, int32_t stride,
                               ValueSums& sums) {
  if constexpr (kind == SideKind::kCentroids) {
    return add_centroids(warp, page, weights, stride, sums);
  } else if constexpr (is_packed(kind)) {
    if (page.format->factors_at >= 0) scale_weights(warp, page, weights, stride);
    if (page.format->outliers > 0 || page.format->dense_channels > 0)
      add_kept<has_levels(kind)>(warp, page, value_places<kind>(page.format->width, warp.lane()), weights,
                                 stride, sums);
    if (units_share_scales(*page.format)) return add_tokens<kind, true>(warp, page, weights, stride, sums);
  }
  if constexpr (kind != SideKind::kCentroids) add_tokens<kind, false>(warp, page, weights, stride, sums);
}

template <class Warp>
struct AddPage {
  Warp& warp;
  const SidePage& page;
  float* weights;
  int32_t stride;
  ValueSums& sums;

  template <SideKind kind>
  KVA_LANE_CODE void run() {
    add_page_of<kind>(warp, page, weights, stride, sums);
  }
};

// Adds the sums of the lanes of each unit; the first lanes write them, rows that the item has, to `values`
// [rows, width].
template <class Warp>
struct WriteSums {
  Warp& warp;
  int32_t width;
  int32_t rows;
  float* values;
  ValueSums& sums;

  template <SideKind kind>
  KVA_LANE_CODE void run() {
    const LaneSplit split = lane_split(width);
    const UnitPlaces places = value_places<kind>(width, warp.lane());
    const bool writes = warp.lane() < split.lanes && warp.lane() * kUnit < width;
    KVA_UNROLL
    for (int r = 0; r < kItemRows; ++r) {
      KVA_UNROLL
      for (int j = 0; j < kUnit; ++j) {
        float sum = sums[r][j];
        for (int mask = 16; mask >= split.lanes; mask /= 2) sum += warp.shuffle_xor(sum, mask);
        if (writes && r < rows) values[r * width + places.place(j)] = sum;
      }
    }
  }
};

}  // namespace kva
