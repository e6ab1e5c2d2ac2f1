// Scores of one page's keys for the query rows of an attention item, by one warp.
//
// A Warp has lane() of 0 to 31, shuffle_xor(value, mask) - the value of lane() ^ mask, for all lanes at once
// - and sync(), behind which the lanes see each other's writes.
#pragma once

#include <cmath>
#include <cstdint>

#include "kernels/attention_centroids.h"
#include "kernels/attention_job.h"
#include "kernels/attention_units.h"
#include "kernels/host_device.h"

namespace kva {

// The sums of four numbers over groups of `lanes` neighbouring lanes, lanes >= 4: returns sum number *which,
// the same for lanes / 4 neighbours.
template <class Warp>
KVA_LANE_CODE inline float sum_four(Warp& warp, const float (&x)[4], int lanes, int* which) {
  const bool upper = (warp.lane() & (lanes / 2)) != 0;
  const float a0 = (upper ? x[2] : x[0]) + warp.shuffle_xor(upper ? x[0] : x[2], lanes / 2);
  const float a1 = (upper ? x[3] : x[1]) + warp.shuffle_xor(upper ? x[1] : x[3], lanes / 2);
  const bool odd = (warp.lane() & (lanes / 4)) != 0;
  float sum = (odd ? a1 : a0) + warp.shuffle_xor(odd ? a0 : a1, lanes / 4);
  for (int mask = lanes / 8; mask > 0; mask /= 2) sum += warp.shuffle_xor(sum, mask);
  *which = (upper ? 2 : 0) + (odd ? 1 : 0);
  return sum;
}

// scores[r * stride + t] = query r · token t, of rows of tokens. queries: [kItemRows, width], shared.
// kSharedScales: units_share_scales().
template <SideKind kind, bool kSharedScales, class Warp>
KVA_LANE_CODE void score_tokens(Warp& warp, const SidePage& page, const float* queries, float* scores,
                                int32_t stride) {
  const int32_t width = page.format->width;
  const LaneSplit split = lane_split(width);
  const int32_t unit = warp.lane() % split.lanes;
  const int32_t row = warp.lane() / split.lanes;
  const bool has_unit = unit * kUnit < width;
  const TokenUnits<kind> units(page, has_unit ? unit : 0);
  float query[kItemRows][kUnit];
  KVA_UNROLL
  for (int r = 0; r < kItemRows; ++r) {
    KVA_UNROLL
    for (int j = 0; j < kUnit; ++j)
      query[r][j] = has_unit ? queries[r * width + units.address.places.place(j)] : 0.0f;
  }
  float query_sum[kItemRows] = {};
  KVA_UNROLL
  for (int r = 0; r < kItemRows; ++r) {
    KVA_UNROLL
    for (int j = 0; j < kUnit; ++j) query_sum[r] += query[r][j];
  }
  // Scales of their own take the registers of more units.
  constexpr int kAhead = is_packed(kind) && !kSharedScales ? 4 : units_ahead(kind);
  for (int32_t first = 0; first < page.tokens; first += kAhead * split.rows) {
    RawUnit raw[kAhead];
    KVA_UNROLL
    for (int i = 0; i < kAhead; ++i) raw[i] = units.load(page.clipped(first + i * split.rows + row));
    KVA_UNROLL
    for (int four = 0; four < kAhead; four += 4) {
      const int32_t of_four = first + four * split.rows;
      if (of_four >= page.tokens) break;
      float sums[kItemRows][4];
      KVA_UNROLL
      for (int i = 0; i < 4; ++i) {
        const int32_t token = page.clipped(of_four + i * split.rows + row);
        float key[kUnit];
        units.template numbers<kSharedScales>(raw[four + i], token, key);
        CodeScale one = {1.0f, 0.0f};
        if constexpr (kSharedScales) one = units.scale(token);
        KVA_UNROLL
        for (int r = 0; r < kItemRows; ++r) {
          sums[r][i] = 0.0f;
          KVA_UNROLL
          for (int j = 0; j < kUnit; ++j) sums[r][i] = fmaf(query[r][j], key[j], sums[r][i]);
          if constexpr (kSharedScales) sums[r][i] = fmaf(sums[r][i], one.scale, query_sum[r] * one.zero);
          // A query of zeros would make NaN of an infinite key that the lane has no unit of.
          if (!has_unit) sums[r][i] = 0.0f;
        }
      }
      KVA_UNROLL
      for (int r = 0; r < kItemRows; ++r) {
        int which;
        const float sum = sum_four(warp, sums[r], split.lanes, &which);
        const int32_t token = of_four + which * split.rows + row;
        if (unit % (split.lanes / 4) == 0 && token < page.tokens) scores[r * stride + token] = sum;
      }
    }
  }
}

// The code of one number of a row without whole units.
KVA_RARE_CODE inline uint32_t odd_code(const uint8_t* row, int bits, int32_t length, int32_t index) {
  return index < length ? packed_code(row, bits, length, index) : 0;
}

// A unit of tokens of rows of channels, for one lane.
template <SideKind kind>
struct ChannelUnits {
  KVA_LANE_CODE ChannelUnits(const SidePage& page_, int32_t unit)
      : page(page_), row_bytes(packed_bytes(side_bits(kind), page_.tokens)) {
    rows = page.payload + page.format->codes_at;
    if (page.tokens % kUnit == 0)
      address = unit_address<kind>(page.tokens, unit);
    else
      address.places.first = unit * kUnit;
    const uint8_t* first = rows + address.at;
    whole = reinterpret_cast<uintptr_t>(first) % side_bits(kind) == 0 && row_bytes % side_bits(kind) == 0;
  }

  // The unit's bytes at a channel, where the page has whole units; else nothing.
  KVA_LANE_CODE UnitBits load(int32_t channel) const {
    if (page.tokens % kUnit != 0) return {};
    return load_unit<side_bits(kind)>(rows + channel * row_bytes + address.at, address.plane, whole);
  }
  KVA_LANE_CODE void codes(const UnitBits& bits, int32_t channel, float (&values)[kUnit]) const {
    constexpr int kBits = side_bits(kind);
    KVA_UNROLL
    for (int j = 0; j < kUnit; ++j) {
      values[j] = code_number<kind>(
          page, page.tokens % kUnit == 0
                    ? unit_code<kBits>(bits, j)
                    : odd_code(rows + channel * row_bytes, kBits, page.tokens, address.places.place(j)));
    }
  }

  // What the unit's numbers of a channel share.
  KVA_LANE_CODE CodeScale scale(int32_t channel) const {
    return shared_scale<kind>(page, scale_index(*page.format, address.places.first, channel));
  }

  SidePage page;
  int32_t row_bytes;
  const uint8_t* rows;
  UnitAddress address;
  bool whole;
};

// The same of rows of channels: a lane sums its tokens over some of the channels.
template <SideKind kind, bool kSharedScales, class Warp>
KVA_LANE_CODE void score_channels(Warp& warp, const SidePage& page, const float* queries, float* scores,
                                  int32_t stride) {
  const int32_t width = page.format->width;
  const LaneSplit split = lane_split(page.tokens);
  const int32_t unit = warp.lane() % split.lanes;
  const bool has_unit = unit * kUnit < page.tokens;
  const ChannelUnits<kind> units(page, has_unit ? unit : 0);
  float sums[kItemRows][kUnit] = {};
  float zeros[kItemRows] = {};
  constexpr int kAhead = kSharedScales ? 8 : 1;
  for (int32_t first = warp.lane() / split.lanes; first < width; first += kAhead * split.rows) {
    UnitBits raw[kAhead];
    KVA_UNROLL
    for (int i = 0; i < kAhead; ++i) {
      const int32_t channel = first + i * split.rows;
      raw[i] = units.load(channel < width ? channel : width - 1);
    }
    KVA_UNROLL
    for (int i = 0; i < kAhead; ++i) {
      const int32_t channel = first + i * split.rows;
      if (channel >= width) break;
      float key[kUnit];
      units.codes(raw[i], channel, key);
      CodeScale one = {1.0f, 0.0f};
      if constexpr (kSharedScales) {
        one = units.scale(channel);
      } else {
        KVA_UNROLL
        for (int j = 0; j < kUnit; ++j)
          key[j] = scaled_number<kind>(page, key[j], page.clipped(units.address.places.place(j)), channel);
      }
      KVA_UNROLL
      for (int r = 0; r < kItemRows; ++r) {
        const float query = queries[r * width + channel];
        const float scaled = query * one.scale;
        if constexpr (kSharedScales) zeros[r] = fmaf(query, one.zero, zeros[r]);
        KVA_UNROLL
        for (int j = 0; j < kUnit; ++j) sums[r][j] = fmaf(scaled, key[j], sums[r][j]);
      }
    }
  }
  KVA_UNROLL
  for (int r = 0; r < kItemRows; ++r) {
    KVA_UNROLL
    for (int j = 0; j < kUnit; ++j) {
      float sum = sums[r][j] + zeros[r];
      for (int mask = 16; mask >= split.lanes; mask /= 2) sum += warp.shuffle_xor(sum, mask);
      const int32_t token = units.address.places.place(j);
      if (warp.lane() < split.lanes && has_unit && token < page.tokens) scores[r * stride + token] = sum;
    }
  }
}

// Adds what is kept beside a packed side's codes, for the tokens that the lane looks after. Each token's
// outliers are neighbours in their list.
template <bool kLevels, class Warp>
KVA_LANE_CODE void score_kept(Warp& warp, const SidePage& page, const float* queries, float* scores,
                              int32_t stride) {
  const SideFormat& format = *page.format;
  const int32_t width = format.width;
  for (int32_t token = warp.lane(); token < page.tokens; token += 32) {
    const auto add = [&](int32_t channel, float number) {
      const float beyond_code = number - left_code_value<kLevels>(page, token, channel);
      KVA_UNROLL
      for (int r = 0; r < kItemRows; ++r)
        scores[r * stride + token] += queries[r * width + channel] * beyond_code;
    };
    if (format.outliers > 0) {
      const uint32_t end = static_cast<uint32_t>((token + 1) * width);
      const uint8_t* list = page.payload + format.places_at;
      for (int32_t i = first_outlier(format, page.payload, end - width); i < format.outliers; ++i) {
        const uint32_t place = listed_place(list, format.place_bits, i);
        if (place >= end) break;
        add(static_cast<int32_t>(place) - token * width, f16_at(page.payload, format.outlier_values_at, i));
      }
    }
    const auto* channels = reinterpret_cast<const uint16_t*>(page.payload + format.channels_at);
    for (int32_t i = 0; i < format.dense_channels; ++i)
      add(channels[i], f16_at(page.payload, format.channel_values_at, i * page.tokens + token));
    if (format.factors_at >= 0) {
      const float factor = f16_at(page.payload, format.factors_at, token);
      KVA_UNROLL
      for (int r = 0; r < kItemRows; ++r) scores[r * stride + token] *= factor;
    }
  }
}

// Scores of one page.
template <class Warp>
struct ScorePage {
  Warp& warp;
  const SidePage& page;
  const float* queries;
  float* scores;
  int32_t stride;

  template <SideKind kind>
  KVA_LANE_CODE void run() {
    const SideFormat& format = *page.format;
    if constexpr (kind == SideKind::kCentroids) {
      score_centroids(warp, page, queries, scores, stride);
    } else if constexpr (!is_packed(kind)) {
      score_tokens<kind, false>(warp, page, queries, scores, stride);
    } else if constexpr (is_by_channel(kind)) {
      if (units_share_scales(format))
        score_channels<kind, true>(warp, page, queries, scores, stride);
      else
        score_channels<kind, false>(warp, page, queries, scores, stride);
    } else {
      if (units_share_scales(format))
        score_tokens<kind, true>(warp, page, queries, scores, stride);
      else
        score_tokens<kind, false>(warp, page, queries, scores, stride);
    }
    warp.sync();
    if constexpr (is_packed(kind) && kind != SideKind::kCentroids) {
      score_kept<has_levels(kind)>(warp, page, queries, scores, stride);
      warp.sync();
    }
  }
};

}  // namespace kva
