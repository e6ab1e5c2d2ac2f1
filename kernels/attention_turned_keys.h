// Scores of keys that are not cached as their positions turn them, by one warp: turned within their page,
// which the queries make up for, or not at all.
#pragma once

#include <cmath>
#include <cstdint>

#include "kernels/attention_job.h"
#include "kernels/attention_math.h"
#include "kernels/attention_parts.h"
#include "kernels/attention_units.h"
#include "kernels/decoder_lanes.h"
#include "kernels/host_device.h"

namespace kva {

// The item's queries, scaled and turned by how far they stand behind `start`. What was in `queries` is not
// needed any more.
template <class Warp>
KVA_LANE_CODE void turn_queries(Warp& warp, const AttentionJob& job, const AttentionItem& item, int32_t start,
                                float* queries) {
  warp.sync();
  const int32_t dim = job.head_dim;
  const int32_t half = job.rotary_dim / 2;
  for (int32_t c = warp.lane(); c < dim; c += 32) {
    const bool second = c >= half;
    for (int r = 0; r < item.rows; ++r) {
      const int32_t row = item.first_row + r;
      const int32_t token = row / job.group;
      const int32_t head = item.kv_head * job.group + row - token * job.group;
      const float* from = job.queries + (item.batch_row + token) * job.query_stride + int64_t{head} * dim;
      float value = from[c] * job.scale;
      if (c < job.rotary_dim) {
        const RotaryTurn turn =
            turn_at(item.position + token - start, job.inverse_frequencies[second ? c - half : c]);
        const float other = from[second ? c - half : c + half] * job.scale;
        value = second ? turned_second(other, value, turn) : turned_first(value, other, turn);
      }
      queries[r * dim + c] = value;
    }
  }
  warp.sync();
}

// A number as its row or code has it, without what is kept beside codes.
template <SideKind kind>
KVA_LANE_CODE inline float side_number(const SidePage& page, int32_t token, int32_t channel) {
  const SideFormat& format = *page.format;
  if constexpr (kind == SideKind::kCentroids) {
    const Centroids of(page);
    return of.number(channel, of.code(token, channel / of.part_width));
  } else if constexpr (is_packed(kind)) {
    constexpr int kBits = side_bits(kind);
    const int32_t row = is_by_channel(kind) ? channel : token;
    const int32_t at = is_by_channel(kind) ? token : channel;
    const int32_t length = is_by_channel(kind) ? page.tokens : format.width;
    const uint8_t* codes = page.payload + format.codes_at + row * packed_bytes(kBits, length);
    return scaled_number<kind>(page, code_number<kind>(page, packed_code(codes, kBits, length, at)), token,
                               channel);
  } else {
    const uint8_t* row = page.payload + int64_t{token} * format.width * side_bits(kind) / 8;
    if constexpr (kind == SideKind::kF32) return reinterpret_cast<const float*>(row)[channel];
    if constexpr (kind == SideKind::kF16) return f16_value(reinterpret_cast<const uint16_t*>(row)[channel]);
    if constexpr (kind == SideKind::kBF16) return bf16_value(reinterpret_cast<const uint16_t*>(row)[channel]);
    return fp8_value(row[channel], kind == SideKind::kE4M3 ? Fp8::kE4M3 : Fp8::kE5M2);
  }
}

// The same for a kind that is known at run time only. Called, and one for all of them: what reads numbers one
// by one is slow in any case, and would take long to compile for each kind.
KVA_RARE_CODE inline float any_number(const SidePage& page, int32_t token, int32_t channel) {
  const SideFormat& format = *page.format;
  const SideKind kind = format.kind;
  if (kind == SideKind::kCentroids) return side_number<SideKind::kCentroids>(page, token, channel);
  if (is_packed(kind)) {
    const int bits = side_bits(kind);
    const int32_t row = is_by_channel(kind) ? channel : token;
    const int32_t at = is_by_channel(kind) ? token : channel;
    const int32_t length = is_by_channel(kind) ? page.tokens : format.width;
    const uint32_t code =
        packed_code(page.payload + format.codes_at + row * packed_bytes(bits, length), bits, length, at);
    if (has_levels(kind)) return levelled_number(format, page.payload, page.levels[code], token, channel);
    return coded_number(format, page.payload, static_cast<float>(code), token, channel);
  }
  switch (kind) {
    case SideKind::kF32: return side_number<SideKind::kF32>(page, token, channel);
    case SideKind::kF16: return side_number<SideKind::kF16>(page, token, channel);
    case SideKind::kBF16: return side_number<SideKind::kBF16>(page, token, channel);
    case SideKind::kE4M3: return side_number<SideKind::kE4M3>(page, token, channel);
    default: return side_number<SideKind::kE5M2>(page, token, channel);
  }
}
template <SideKind kind>
KVA_LANE_CODE inline float number_as(KnownKind<kind>, const SidePage& page, int32_t token, int32_t channel) {
  return side_number<kind>(page, token, channel);
}
KVA_LANE_CODE inline float number_as(AnyKind, const SidePage& page, int32_t token, int32_t channel) {
  return any_number(page, token, channel);
}

// Calls body(channel, number - what its code stands for) for the numbers that a packed page keeps of a token
// beside its codes: those of this lane, of 32.
template <class Body>
KVA_LANE_CODE inline void for_kept_of_token(const SidePage& page, int32_t token, int lane, const Body& body) {
  const SideFormat& format = *page.format;
  const auto keep = [&](int32_t channel, float number) {
    body(channel, number - left_code_value(page, token, channel));
  };
  if (format.outliers > 0) {
    const uint32_t end = static_cast<uint32_t>((token + 1) * format.width);
    const uint8_t* list = page.payload + format.places_at;
    for (int32_t i = first_outlier(format, page.payload, end - format.width) + lane; i < format.outliers;
         i += 32) {
      const uint32_t place = listed_place(list, format.place_bits, i);
      if (place >= end) break;
      keep(static_cast<int32_t>(place) - token * format.width,
           f16_at(page.payload, format.outlier_values_at, i));
    }
  }
  const auto* channels = reinterpret_cast<const uint16_t*>(page.payload + format.channels_at);
  for (int32_t i = lane; i < format.dense_channels; i += 32)
    keep(channels[i], f16_at(page.payload, format.channel_values_at, i * page.tokens + token));
}

KVA_LANE_CODE inline int32_t position_of(const DevicePage& page, int32_t token) {
  if (!page.has_places) return page.start + token;
  if (page.wide_offsets) return page.start + static_cast<const int32_t*>(page.offsets)[token];
  return page.start + static_cast<const uint16_t*>(page.offsets)[token];
}

// By how much the token's key is turned: its position, or its place among what the table still holds.
KVA_LANE_CODE inline int32_t turn_of(const DevicePage& page, int32_t token) {
  if (page.index < 0) return position_of(page, token);
  int32_t turn = page.index + token;
  for (int32_t t = 0; page.biases && t < token; ++t) turn -= page.biases[t] == kNoScore ? 1 : 0;
  return turn;
}

// scores[r * job.longest_page + t] = query r · token t turned to its position; the queries are turned.
// kParts: whether pages may have parts.
template <bool kParts, class Warp>
struct ScoreTurnedPage {
  Warp& warp;
  const AttentionJob& job;
  const DevicePage& page;
  const SidePage& keys;
  const float* queries;
  float* scores;

  // What the query turned back by the token's position has at a channel.
  KVA_LANE_CODE float turned_back(int r, int32_t position, int32_t channel) const {
    const float* query = queries + r * job.head_dim;
    if (channel >= job.rotary_dim) return query[channel];
    const int32_t half = job.rotary_dim / 2;
    const bool second = channel >= half;
    const RotaryTurn turn = turn_at(position, job.inverse_frequencies[second ? channel - half : channel]);
    return second ? query[channel] * turn.cosine - query[channel - half] * turn.sine
                  : query[channel] * turn.cosine + query[channel + half] * turn.sine;
  }
  KVA_LANE_CODE void add(float (&sums)[kItemRows], int32_t position, int32_t channel, float number) const {
    for (int r = 0; r < kItemRows; ++r) sums[r] = fmaf(turned_back(r, position, channel), number, sums[r]);
  }
  // A number without what is kept beside its code. codes: the page's coded part.
  template <class Kind>
  KVA_LANE_CODE float number(Kind kind, const SidePage& codes, int32_t token, int32_t channel) const {
    if (!kParts || !has_parts(*keys.format)) return number_as(kind, keys, token, channel);
    const int32_t front = keys.format->front;
    if (token < front) return side_number<SideKind::kF16>(keys, token, channel);
    return number_as(kind, codes, token - front, channel) + low_rank_number(keys, token, channel);
  }

  template <SideKind kind>
  KVA_LANE_CODE void run() {
    score(KnownKind<kind>());
  }
  template <class Kind>
  KVA_LANE_CODE void score(Kind kind) {
    const SideFormat& format = *keys.format;
    const int32_t front = kParts ? format.front : 0;
    const SidePage codes = coded_part(keys);
    for (int32_t token = 0; token < keys.tokens; ++token) {
      const int32_t position = turn_of(page, token);
      float sums[kItemRows] = {};
      for (int32_t c = warp.lane(); c < format.width; c += 32)
        add(sums, position, c, number(kind, codes, token, c));
      float factor = 1.0f;
      if (is_packed(kind_of(kind)) && token >= front) {
        for_kept_of_token(codes, token - front, warp.lane(), [&](int32_t channel, float beyond_code) {
          add(sums, position, channel, beyond_code);
        });
        if (format.factors_at >= 0) factor = f16_at(keys.payload, format.factors_at, token - front);
      }
      for (int r = 0; r < kItemRows; ++r) {
        const float sum = warp_sum(warp, sums[r]);
        if (warp.lane() == r) scores[r * job.longest_page + token] = sum * factor;
      }
    }
    warp.sync();
  }
};

}  // namespace kva
