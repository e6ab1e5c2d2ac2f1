// Numbers into codes of a codebook on the device: of levels (compressors/codecs/codebook_codec.h) and of
// centroids of a token's parts (compressors/codecs/pq_codec.h), as those codecs choose them; and rows
// projected on a basis before that. A Team is that of kernels/pack_lanes.h.
#pragma once

#include <cmath>
#include <cstdint>

#include "kernels/device_page.h"
#include "kernels/host_device.h"
#include "kernels/packed_math.h"
#include "kernels/scale_math.h"
#include "kernels/value_math.h"

namespace kva {

KVA_LANE_CODE inline float shared_half(const SideFormat& f, int32_t i) {
  return f16_value(static_cast<const uint16_t*>(f.shared[kSharedNumbers])[i]);
}

// Of the vector of numbers in [low, high], which levels in [-1, 1] stand for: half the range and its middle.
KVA_LANE_CODE inline StoredScale level_range(float low, float high) {
  const auto from = static_cast<double>(low);
  const auto to = static_cast<double>(high);
  return {f16_code(static_cast<float>(0.5 * (to - from))), f16_code(static_cast<float>(0.5 * (to + from)))};
}

// The number of the nearest of the format's levels, which ascend; of two equally near ones the lower.
KVA_LANE_CODE inline uint32_t nearest_level(const SideFormat& f, float number) {
  int32_t low = 0;
  int32_t high = level_count(f.kind) - 1;
  while (low < high) {
    const int32_t middle = (low + high) / 2;
    if (0.5f * (shared_half(f, middle) + shared_half(f, middle + 1)) < number)
      low = middle + 1;
    else
      high = middle;
  }
  return static_cast<uint32_t>(low);
}

// By the scale and the zero of index `scale`, which are there already.
KVA_LANE_CODE inline uint32_t level_code(const SideFormat& f, const uint8_t* payload, int32_t scale,
                                         float number) {
  const CodeScale of = level_scale(f, payload, scale);
  return nearest_level(f, of.scale > 0.0f ? (number - of.zero) / of.scale : 0.0f);
}

// Tokens that keep their length: scales and, in `codes` [tokens, width], codes. number(token, channel): what
// is coded. deviations: [tokens], scratch. *refused becomes 1 where f16 has no scale for a token.
template <class Team, class Number>
KVA_LANE_CODE void code_by_length(Team& team, const SideFormat& f, const Number& number, double* deviations,
                                  uint8_t* codes, uint8_t* payload, int32_t* refused) {
  const auto squares = [&](int32_t token) {
    double sum = 0.0;
    for (int32_t c = 0; c < f.width; ++c) {
      const auto x = static_cast<double>(number(token, c));
      sum += x * x;
    }
    return sum;
  };
  team.each(f.tokens, [&](int32_t t) { deviations[t] = sqrt(squares(t) / static_cast<double>(f.width)); });
  team.each(f.tokens * f.width, [&](int32_t i) {
    const int32_t token = i / f.width;
    const double deviation = deviations[token];
    const auto x = static_cast<double>(number(token, i - token * f.width));
    codes[i] =
        static_cast<uint8_t>(nearest_level(f, deviation > 0.0 ? static_cast<float>(x / deviation) : 0.0f));
  });
  team.each(f.tokens, [&](int32_t t) {
    double coded = 0.0;
    for (int32_t c = 0; c < f.width; ++c) {
      const auto level = static_cast<double>(shared_half(f, codes[t * f.width + c]));
      coded += level * level;
    }
    const double scale = coded > 0.0 ? sqrt(squares(t) / coded) : 0.0;
    if (!(scale <= 65504.0)) *refused = 1;
    reinterpret_cast<uint16_t*>(payload + f.scales_at)[t] = f16_code(static_cast<float>(scale));
  });
}

// The number of the centroid that is nearest to a part of a token; of equally near ones the first. As
// nearest_columns() (kernels/nearest.h) finds it with fused multiply-adds, four centroids at once, since
// sharing goes by four at least.
template <class Number>
KVA_LANE_CODE uint8_t nearest_centroid(const SideFormat& f, const Number& number, int32_t token,
                                       int32_t part) {
  constexpr int kAtOnce = 4;
  const int32_t entries = 1 << f.code_bits;
  const int32_t length = f.width / f.parts;
  const auto* table =
      static_cast<const uint16_t*>(f.shared[kSharedNumbers]) + int64_t{part} * length * entries;
  float best = -3.4028235e38f;
  int32_t nearest = 0;
  for (int32_t first = 0; first < entries; first += kAtOnce) {
    float closeness[kAtOnce] = {};
    for (int32_t i = 0; i < length; ++i) KVA_UNROLL
    for (int k = 0; k < kAtOnce; ++k) {
      const float x = f16_value(table[i * entries + first + k]);
      closeness[k] -= 0.5f * x * x;
    }
    for (int32_t i = 0; i < length; ++i) {
      const float x = number(token, part * length + i);
      KVA_UNROLL
      for (int k = 0; k < kAtOnce; ++k)
        closeness[k] = fmaf(x, f16_value(table[i * entries + first + k]), closeness[k]);
    }
    for (int k = 0; k < kAtOnce; ++k)
      if (closeness[k] > best) {
        best = closeness[k];
        nearest = first + k;
      }
  }
  return static_cast<uint8_t>(nearest);
}

// projected (t, v) = rows token t times vector v of the basis, f16 [width, width], as exact_products()
// (kernels/exact_products.h): products are exact in f64, in which they are added up in the order of the
// channels. A thread takes a vector with several tokens, so that it reads the vector once for them.
template <class Team>
KVA_LANE_CODE void project_rows(Team& team, const float* rows, const uint16_t* basis, int32_t tokens,
                                int32_t width, float* projected) {
  constexpr int kTokens = 8;
  team.each((tokens + kTokens - 1) / kTokens * width, [&](int32_t i) {
    const int32_t vector = i % width;
    const int32_t first = i / width * kTokens;
    const int32_t left = tokens - first;
    double sums[kTokens] = {};
    for (int32_t c = 0; c < width; ++c) {
      const auto x = static_cast<double>(f16_value(basis[int64_t{vector} * width + c]));
      KVA_UNROLL
      for (int t = 0; t < kTokens; ++t)
        if (t < left) sums[t] += static_cast<double>(rows[int64_t{first + t} * width + c]) * x;
    }
    KVA_UNROLL
    for (int t = 0; t < kTokens; ++t)
      if (t < left) projected[int64_t{first + t} * width + vector] = static_cast<float>(sums[t]);
  });
}

}  // namespace kva
