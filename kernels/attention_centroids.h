// Pages of product quantization (SideKind::kCentroids), by one warp: a token is `parts` codes, each the
// number of a centroid of one part of its channels. Keys are read through tables of the queries' products
// with all centroids where those fit, else centroid by centroid, as values are.
#pragma once

#include <cmath>
#include <cstdint>

#include "kernels/attention_job.h"
#include "kernels/attention_units.h"
#include "kernels/attention_work.h"
#include "kernels/host_device.h"

namespace kva {

// The codebook: f16 [width, entries], a row for each channel.
struct Centroids {
  KVA_LANE_CODE explicit Centroids(const SidePage& page)
      : numbers(static_cast<const uint16_t*>(page.format->shared[kSharedNumbers])),
        codes(page.payload + page.format->codes_at),
        parts(page.format->parts),
        part_width(page.format->width / page.format->parts),
        bits(page.format->code_bits),
        row_bytes(packed_bytes(bits, parts)) {}
  KVA_LANE_CODE int32_t code(int32_t token, int32_t part) const {
    const uint8_t* row = codes + token * row_bytes;
    return bits == 8 ? row[part] : static_cast<int32_t>(packed_code(row, bits, parts, part));
  }
  KVA_LANE_CODE float number(int32_t channel, int32_t code) const {
    return f16_value(numbers[(channel << bits) + code]);
  }

  const uint16_t* numbers;
  const uint8_t* codes;
  int32_t parts;
  int32_t part_width;
  int32_t bits;
  int32_t row_bytes;
};

// tables[(part << bits + code) * kItemRows + r] = query r · the centroid. queries: [kItemRows, width],
// shared.
template <class Warp>
KVA_LANE_CODE void tabulate_centroids(Warp& warp, const SidePage& page, const float* queries, float* tables) {
  const Centroids of(page);
  const int32_t width = page.format->width;
  for (int32_t i = warp.lane(); i < of.parts << of.bits; i += 32) {
    const int32_t first = (i >> of.bits) * of.part_width;
    float sums[kItemRows] = {};
    for (int32_t c = first; c < first + of.part_width; ++c) {
      const float number = of.number(c, i & ((1 << of.bits) - 1));
      KVA_UNROLL
      for (int r = 0; r < kItemRows; ++r) sums[r] = fmaf(queries[r * width + c], number, sums[r]);
    }
    KVA_UNROLL
    for (int r = 0; r < kItemRows; ++r) tables[i * kItemRows + r] = sums[r];
  }
}

// scores[r * stride + t] = query r · token t, each lane for tokens of its own: neighbours' numbers of a
// channel lie in one short row. page.levels: the tables; null: none.
template <class Warp>
KVA_LANE_CODE void score_centroids(Warp& warp, const SidePage& page, const float* queries, float* scores,
                                   int32_t stride) {
  const Centroids of(page);
  const int32_t width = page.format->width;
  for (int32_t token = warp.lane(); token < page.tokens; token += 32) {
    float sums[kItemRows] = {};
    for (int32_t part = 0; part < of.parts; ++part) {
      const int32_t code = of.code(token, part);
      if (page.levels) {
        const float* products = page.levels + ((part << of.bits) + code) * kItemRows;
        KVA_UNROLL
        for (int r = 0; r < kItemRows; ++r) sums[r] += products[r];
        continue;
      }
      for (int32_t c = part * of.part_width; c < (part + 1) * of.part_width; ++c) {
        const float number = of.number(c, code);
        KVA_UNROLL
        for (int r = 0; r < kItemRows; ++r) sums[r] = fmaf(queries[r * width + c], number, sums[r]);
      }
    }
    KVA_UNROLL
    for (int r = 0; r < kItemRows; ++r) scores[r * stride + token] = sums[r];
  }
}

// sums += weights[r * stride + t] * token t: lanes have neighbouring channels.
template <class Warp>
KVA_LANE_CODE void add_centroids(Warp& warp, const SidePage& page, const float* weights, int32_t stride,
                                 float (&sums)[kItemRows][kUnit]) {
  const Centroids of(page);
  const LaneSplit split = lane_split(page.format->width);
  const int32_t first = warp.lane() % split.lanes * kUnit;
  if (first >= page.format->width) return;  // nothing below needs the other lanes
  for (int32_t token = warp.lane() / split.lanes; token < page.tokens; token += split.rows) {
    int32_t part = first / of.part_width;
    int32_t end = (part + 1) * of.part_width;
    int32_t code = of.code(token, part);
    KVA_UNROLL
    for (int j = 0; j < kUnit; ++j) {
      if (first + j == end) {
        code = of.code(token, ++part);
        end += of.part_width;
      }
      const float value = of.number(first + j, code);
      KVA_UNROLL
      for (int r = 0; r < kItemRows; ++r) sums[r][j] = fmaf(weights[r * stride + token], value, sums[r][j]);
    }
  }
}

}  // namespace kva
