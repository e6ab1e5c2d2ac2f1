// Page sides whose codes stand for numbers that sides share, and sides of several parts, as device kernels
// read them, made on the host.
#pragma once

#include <cstdint>
#include <random>
#include <utility>
#include <vector>

#include "kernels/packed.h"
#include "tests/kernels/device_sides.h"

namespace kva {

// f16 numbers within [low, low + 1).
inline std::vector<uint16_t> draw_halves(int64_t count, float low, std::mt19937& random) {
  std::vector<uint16_t> halves;
  for (int64_t i = 0; i < count; ++i)
    halves.push_back(f16_from_f32(low + static_cast<float>(random() % 1024) / 1024.0f));
  return halves;
}

inline std::vector<uint8_t> draw_codes(int64_t count, int bits, std::mt19937& random) {
  std::vector<uint8_t> codes;
  for (int64_t i = 0; i < count; ++i) codes.push_back(static_cast<uint8_t>(random() % (1u << bits)));
  return codes;
}

// rows: what is kept where the spec keeps numbers; codes, levels and scales are drawn. A symmetric spec has
// no zeros.
inline HostSide make_levels_side(const std::vector<float>& rows, int64_t width, const SideSpec& spec,
                                 unsigned seed) {
  const int64_t tokens = static_cast<int64_t>(rows.size()) / width;
  const int bits = side_bits(spec.kind);
  std::mt19937 random(seed);
  HostSide side;
  SideFormat& format = side.format;
  format.kind = spec.kind;
  format.scale_by_token = spec.axis == ScaleAxis::kToken;
  format.width = static_cast<int32_t>(width);
  format.tokens = static_cast<int32_t>(tokens);
  format.group = static_cast<int32_t>(format.scale_by_token ? width : tokens);
  const std::vector<uint8_t> kept = put_kept(side, spec, {rows.data(), tokens, width}, random);
  side.shared = draw_halves(level_count(spec.kind), -0.5f, random);
  const int64_t vectors = format.scale_by_token ? tokens : width;
  const std::vector<uint16_t> scales = draw_halves(vectors, 0.5f, random);
  const std::vector<uint16_t> zeros = draw_halves(spec.symmetric ? 0 : vectors, -0.5f, random);
  format.scales_at = put_halves(side.payload, scales);
  if (!spec.symmetric) format.zeros_at = put_halves(side.payload, zeros);
  format.codes_at = static_cast<int32_t>(side.payload.size());
  const bool by_channel = is_by_channel(spec.kind);
  const int64_t packed_rows = by_channel ? width : tokens, length = by_channel ? tokens : width;
  const int64_t row_bytes = packed_row_bytes(bits, length);
  side.payload.resize(side.payload.size() + static_cast<std::size_t>(packed_rows * row_bytes));
  format.bytes = static_cast<int32_t>(side.payload.size());
  side.numbers.resize(rows.size());
  for (int64_t r = 0; r < packed_rows; ++r) {
    std::vector<uint8_t> codes = draw_codes(length, bits, random);
    for (int64_t i = 0; i < length; ++i) {
      const int64_t token = by_channel ? i : r, channel = by_channel ? r : i;
      const auto at = static_cast<std::size_t>(token * width + channel);
      const auto vector = static_cast<std::size_t>(format.scale_by_token ? token : channel);
      uint8_t& code = codes[static_cast<std::size_t>(i)];
      if (kept[at]) code = 0;
      side.numbers[at] = kept[at] ? f32_from_f16(f16_from_f32(rows[at]))
                                  : f32_from_f16(side.shared[code]) * f32_from_f16(scales[vector]) +
                                        (spec.symmetric ? 0.0f : f32_from_f16(zeros[vector]));
    }
    pack_row(codes.data(), bits, length, side.payload.data() + format.codes_at + r * row_bytes);
  }
  return side;
}

// Codes of `bits` bits for `parts` parts of a token; parts divides the width.
inline HostSide make_centroids_side(int64_t tokens, int64_t width, int64_t parts, int bits, unsigned seed) {
  std::mt19937 random(seed);
  HostSide side;
  SideFormat& format = side.format;
  format.kind = SideKind::kCentroids;
  format.width = static_cast<int32_t>(width);
  format.tokens = static_cast<int32_t>(tokens);
  format.parts = static_cast<int32_t>(parts);
  format.code_bits = bits;
  side.shared = draw_halves(width << bits, -0.5f, random);
  const int64_t row_bytes = packed_row_bytes(bits, parts);
  format.bytes = static_cast<int32_t>(tokens * row_bytes);
  side.payload.resize(static_cast<std::size_t>(tokens * row_bytes));
  for (int64_t t = 0; t < tokens; ++t) {
    const std::vector<uint8_t> codes = draw_codes(parts, bits, random);
    pack_row(codes.data(), bits, parts, side.payload.data() + t * row_bytes);
    for (int64_t c = 0; c < width; ++c)
      side.numbers.push_back(f32_from_f16(side.shared[static_cast<std::size_t>(
          (c << bits) + codes[static_cast<std::size_t>(c / (width / parts))])]));
  }
  return side;
}

// The side's payload behind `halves`.
inline void put_before(HostSide& side, const std::vector<uint16_t>& halves) {
  std::vector<std::byte> payload;
  put_halves(payload, halves);
  move_offsets(side.format, static_cast<int32_t>(payload.size()));
  payload.insert(payload.end(), side.payload.begin(), side.payload.end());
  side.payload = std::move(payload);
}

// A packed side behind `front` tokens of f16.
inline HostSide with_front(HostSide side, int64_t front, unsigned seed) {
  std::mt19937 random(seed);
  const std::vector<uint16_t> rows = draw_halves(front * side.format.width, -0.5f, random);
  put_before(side, rows);
  side.format.front = static_cast<int32_t>(front);
  side.format.tokens += side.format.front;
  std::vector<float> numbers;
  for (const uint16_t number : rows) numbers.push_back(f32_from_f16(number));
  side.numbers.insert(side.numbers.begin(), numbers.begin(), numbers.end());
  return side;
}

// A packed side and a low-rank part.
inline HostSide with_low_rank(HostSide side, int64_t rank, unsigned seed) {
  std::mt19937 random(seed);
  const int64_t tokens = side.format.tokens, width = side.format.width;
  const std::vector<uint16_t> factors = draw_halves(rank * (tokens + width), -0.5f, random);
  put_before(side, factors);
  side.format.rank = static_cast<int32_t>(rank);
  side.format.left_at = 0;
  side.format.right_at = static_cast<int32_t>(2 * rank * tokens);
  const auto factor = [&](int64_t at) { return f32_from_f16(factors[static_cast<std::size_t>(at)]); };
  for (int64_t t = 0; t < tokens; ++t)
    for (int64_t c = 0; c < width; ++c)
      for (int64_t i = 0; i < rank; ++i)
        side.numbers[static_cast<std::size_t>(t * width + c)] +=
            factor(i * tokens + t) * factor(rank * tokens + i * width + c);
  return side;
}

}  // namespace kva
