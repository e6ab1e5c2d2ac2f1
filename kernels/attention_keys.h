// Scores of one page's keys for the query rows of an attention item, by one warp.
//
// A Warp has lane() of 0 to 31, shuffle_xor(value, mask) - the value of lane() ^ mask, for all lanes at once
// - and sync(), behind which the lanes see each other's writes.
#pragma once

#include <cmath>
#include <cstdint>

#include "kernels/attention_job.h"
#include "kernels/attention_units.h"
#include "kernels/host_device.h"

namespace kva {

// Tokens of which a lane reads a unit before it uses the first one.
inline constexpr int kAhead = 4;

// The sums of four numbers over groups of `lanes` neighbouring lanes, lanes >= 4: returns sum number *which,
// the same for lanes / 4 neighbours.
template <class Warp>
KVA_LANE_CODE inline float sum_four(Warp& warp, const float (&x)[kAhead], int lanes, int* which) {
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
template <SideKind kind, class Warp>
KVA_LANE_CODE void score_tokens(Warp& warp, const SidePage& page, const float* queries, float* scores,
                                int32_t stride) {
  const int32_t width = page.format->width;
  const LaneSplit split = lane_split(width);
  const int32_t unit = warp.lane() % split.lanes;
  const int32_t row = warp.lane() / split.lanes;
  const bool has_unit = unit * kUnit < width;
  TokenUnits<kind> units(page, has_unit ? unit : 0);
  float query[kItemRows][kUnit];
  KVA_UNROLL
  for (int r = 0; r < kItemRows; ++r) {
    KVA_UNROLL
    for (int j = 0; j < kUnit; ++j)
      query[r][j] = has_unit ? queries[r * width + units.address.places.place(j)] : 0.0f;
  }
  for (int32_t first = 0; first < page.tokens; first += kAhead * split.rows) {
    RawUnit raw[kAhead];
    KVA_UNROLL
    for (int i = 0; i < kAhead; ++i) {
      const int32_t token = first + i * split.rows + row;
      raw[i] = units.load(token < page.tokens ? token : page.tokens - 1);
    }
    float sums[kItemRows][kAhead];
    KVA_UNROLL
    for (int i = 0; i < kAhead; ++i) {
      const int32_t token = first + i * split.rows + row;
      float key[kUnit];
      units.numbers(raw[i], token < page.tokens ? token : page.tokens - 1, key);
      KVA_UNROLL
      for (int r = 0; r < kItemRows; ++r) {
        sums[r][i] = 0.0f;
        KVA_UNROLL
        for (int j = 0; j < kUnit; ++j) sums[r][i] = fmaf(query[r][j], key[j], sums[r][i]);
        // A query of zeros would make NaN of an infinite key that the lane has no unit of.
        if (!has_unit) sums[r][i] = 0.0f;
      }
    }
    KVA_UNROLL
    for (int r = 0; r < kItemRows; ++r) {
      int which;
      const float sum = sum_four(warp, sums[r], split.lanes, &which);
      const int32_t token = first + which * split.rows + row;
      if (unit % (split.lanes / 4) == 0 && token < page.tokens) scores[r * stride + token] = sum;
    }
  }
}

// Codes of a unit of neighbouring tokens of one channel; `units` is how many a row has.
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

  KVA_LANE_CODE void codes(int32_t channel, float (&values)[kUnit]) const {
    constexpr int kBits = side_bits(kind);
    const uint8_t* row = rows + channel * row_bytes;
    if (page.tokens % kUnit == 0) {
      const UnitBits bits = load_unit<kBits>(row + address.at, address.plane, whole);
      KVA_UNROLL
      for (int j = 0; j < kUnit; ++j) values[j] = static_cast<float>(unit_code<kBits>(bits, j));
      return;
    }
    KVA_UNROLL
    for (int j = 0; j < kUnit; ++j) {
      const int32_t token = address.places.place(j);
      values[j] =
          token < page.tokens ? static_cast<float>(packed_code(row, kBits, page.tokens, token)) : 0.0f;
    }
  }

  // A unit's scales at a channel, where tokens that the page does not have get those of its last.
  KVA_LANE_CODE void scales(int32_t channel, CodeScale (&of)[kUnit]) const {
    constexpr int kBits = side_bits(kind);
    const SideFormat& format = *page.format;
    if (!format.scale_by_token && format.groups == 1) {
      const CodeScale one = code_scale(format, kBits, page.payload, channel);
      KVA_UNROLL
      for (int j = 0; j < kUnit; ++j) of[j] = one;
      return;
    }
    KVA_UNROLL
    for (int j = 0; j < kUnit; ++j) {
      const int32_t place = address.places.place(j);
      const int32_t token = place < page.tokens ? place : page.tokens - 1;
      of[j] = code_scale(format, kBits, page.payload, scale_index(format, token, channel));
    }
  }

  SidePage page;
  int32_t row_bytes;
  const uint8_t* rows;
  UnitAddress address;
  bool whole;
};

// The same of rows of channels: a lane sums its tokens over some of the channels.
template <SideKind kind, class Warp>
KVA_LANE_CODE void score_channels(Warp& warp, const SidePage& page, const float* queries, float* scores,
                                  int32_t stride) {
  const int32_t width = page.format->width;
  const LaneSplit split = lane_split(page.tokens);
  const int32_t unit = warp.lane() % split.lanes;
  const bool has_unit = unit * kUnit < page.tokens;
  const ChannelUnits<kind> units(page, has_unit ? unit : 0);
  float sums[kItemRows][kUnit] = {};
  for (int32_t channel = warp.lane() / split.lanes; channel < width; channel += split.rows) {
    float key[kUnit];
    CodeScale of[kUnit];
    units.codes(channel, key);
    units.scales(channel, of);
    KVA_UNROLL
    for (int j = 0; j < kUnit; ++j) key[j] = fmaf(key[j], of[j].scale, of[j].zero);
    KVA_UNROLL
    for (int r = 0; r < kItemRows; ++r) {
      const float query = queries[r * width + channel];
      KVA_UNROLL
      for (int j = 0; j < kUnit; ++j) sums[r][j] = fmaf(query, key[j], sums[r][j]);
    }
  }
  KVA_UNROLL
  for (int r = 0; r < kItemRows; ++r) {
    KVA_UNROLL
    for (int j = 0; j < kUnit; ++j) {
      for (int mask = 16; mask >= split.lanes; mask /= 2) sums[r][j] += warp.shuffle_xor(sums[r][j], mask);
      const int32_t token = units.address.places.place(j);
      if (warp.lane() < split.lanes && has_unit && token < page.tokens)
        scores[r * stride + token] = sums[r][j];
    }
  }
}

// Adds what is kept beside a packed side's codes, for the tokens that the lane looks after. Each token's
// outliers are neighbours in their list.
template <class Warp>
KVA_LANE_CODE void score_kept(Warp& warp, const SidePage& page, const float* queries, float* scores,
                              int32_t stride) {
  const SideFormat& format = *page.format;
  const int32_t width = format.width;
  for (int32_t token = warp.lane(); token < page.tokens; token += 32) {
    const auto add = [&](int32_t channel, float number) {
      const float beyond_code = number - kept_code_value(format, page.payload, token, channel);
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

// Scores of one page, the kind being known only here.
template <class Warp>
KVA_LANE_CODE void score_page(Warp& warp, SideKind kind, const SidePage& page, const float* queries,
                              float* scores, int32_t stride) {
  switch (kind) {
    case SideKind::kF32: score_tokens<SideKind::kF32>(warp, page, queries, scores, stride); break;
    case SideKind::kF16: score_tokens<SideKind::kF16>(warp, page, queries, scores, stride); break;
    case SideKind::kBF16: score_tokens<SideKind::kBF16>(warp, page, queries, scores, stride); break;
    case SideKind::kE4M3: score_tokens<SideKind::kE4M3>(warp, page, queries, scores, stride); break;
    case SideKind::kE5M2: score_tokens<SideKind::kE5M2>(warp, page, queries, scores, stride); break;
    case SideKind::kBits8: score_tokens<SideKind::kBits8>(warp, page, queries, scores, stride); break;
    case SideKind::kBits4: score_tokens<SideKind::kBits4>(warp, page, queries, scores, stride); break;
    case SideKind::kBits3: score_tokens<SideKind::kBits3>(warp, page, queries, scores, stride); break;
    case SideKind::kBits2: score_tokens<SideKind::kBits2>(warp, page, queries, scores, stride); break;
    case SideKind::kBits8ByChannel:
      score_channels<SideKind::kBits8ByChannel>(warp, page, queries, scores, stride);
      break;
    case SideKind::kBits4ByChannel:
      score_channels<SideKind::kBits4ByChannel>(warp, page, queries, scores, stride);
      break;
    case SideKind::kBits3ByChannel:
      score_channels<SideKind::kBits3ByChannel>(warp, page, queries, scores, stride);
      break;
    case SideKind::kBits2ByChannel:
      score_channels<SideKind::kBits2ByChannel>(warp, page, queries, scores, stride);
      break;
  }
  warp.sync();
  if (is_packed(kind)) {
    score_kept(warp, page, queries, scores, stride);
    warp.sync();
  }
}

}  // namespace kva
