// Page sides as device kernels read them, made on the host: payload, format, and the numbers that it stands
// for by the CPU's own decoding.
#pragma once

#include <algorithm>
#include <cmath>
#include <cstring>
#include <random>
#include <vector>

#include "kernels/convert.h"
#include "kernels/device_page.h"
#include "kernels/fp8.h"
#include "kernels/packed.h"
#include "kernels/packed_encode.h"
#include "kernels/packed_math.h"

namespace kva {

// How a side is to be stored. All but the kind is for packed kinds.
struct SideSpec {
  SideKind kind = SideKind::kF16;
  ScaleAxis axis = ScaleAxis::kToken;
  int64_t group = 0;  // 0: all
  bool symmetric = false;
  double outliers = 0.0;
  int64_t dense_channels = 0;
  bool factors = false;
};

struct HostSide {
  SideFormat format;
  std::vector<std::byte> payload;
  std::vector<float> numbers;  // [tokens, width]; on a basis, of the tokens themselves
  // tests/kernels/device_based_sides.h: what DevicePage::key_base or value_base points to.
  std::vector<std::byte> base = {};
  SideFormat base_format = {};         // of kScaledBase
  uint16_t basis = 0;                  // DevicePage::key_basis or value_basis
  std::vector<float> magnitudes = {};  // of the sums that numbers are; empty: numbers are what is stored
  int64_t terms = 0;                   // of those sums
  std::vector<uint16_t> shared = {};   // f16, what its codes stand for (device_shared_sides.h)
};

// As a vector that grows by two-byte numbers, at even places.
inline int32_t put_halves(std::vector<std::byte>& payload, const std::vector<uint16_t>& halves) {
  const auto at = static_cast<int32_t>(payload.size());
  const auto* bytes = reinterpret_cast<const std::byte*>(halves.data());
  payload.insert(payload.end(), bytes, bytes + 2 * halves.size());
  return at;
}

inline HostSide make_dense_side(const std::vector<float>& rows, int64_t width, SideKind kind) {
  HostSide side;
  side.format.kind = kind;
  side.format.width = static_cast<int32_t>(width);
  side.format.bytes = static_cast<int32_t>(width * side_bits(kind) / 8);
  side.payload.resize(rows.size() * static_cast<std::size_t>(side_bits(kind)) / 8);
  side.numbers.resize(rows.size());
  const auto count = static_cast<int64_t>(rows.size());
  if (side_bits(kind) == 8) {
    const Fp8 type = kind == SideKind::kE4M3 ? Fp8::kE4M3 : Fp8::kE5M2;
    fp8_from_f32(rows.data(), type, reinterpret_cast<uint8_t*>(side.payload.data()), count);
    fp8_to_f32(reinterpret_cast<const uint8_t*>(side.payload.data()), type, side.numbers.data(), count);
  } else {
    const DType type = kind == SideKind::kF32   ? DType::kF32
                       : kind == SideKind::kF16 ? DType::kF16
                                                : DType::kBF16;
    from_f32(rows.data(), type, side.payload.data(), count);
    to_f32(side.payload.data(), type, side.numbers.data(), count);
  }
  return side;
}

// Scales and zeros of the page's groups, over the numbers that are not kept.
inline void put_scales(HostSide& side, const SideSpec& spec, MatView<const float> rows, PackedPage& page,
                       const std::vector<uint8_t>& kept) {
  const auto count = static_cast<std::size_t>(page.scale_count());
  std::vector<float> low(count), high(count);
  std::vector<uint16_t> scales(count), zeros(count);
  KVA_CHECK(group_ranges(rows, page, kept.data(), 65504.0f, low.data(), high.data()), "numbers within f16");
  for (std::size_t g = 0; g < count; ++g) {
    if (low[g] > high[g]) low[g] = high[g] = 0.0f;
    const auto most = static_cast<float>((1 << page.bits) - 1);
    zeros[g] = f16_from_f32(low[g]);
    scales[g] = f16_from_f32(spec.symmetric ? 2.0f * std::max(-low[g], high[g]) / most
                                            : (high[g] - f32_from_f16(zeros[g])) / most);
  }
  side.format.scales_at = put_halves(side.payload, scales);
  if (!spec.symmetric) side.format.zeros_at = put_halves(side.payload, zeros);
}

// Which numbers are kept beside the codes, and their lists. 1 by place.
inline std::vector<uint8_t> put_kept(HostSide& side, const SideSpec& spec, MatView<const float> rows,
                                     std::mt19937& random) {
  SideFormat& format = side.format;
  std::vector<uint8_t> kept(static_cast<std::size_t>(rows.rows * rows.cols));
  std::vector<uint16_t> channels, values;
  for (int64_t i = 0; i < spec.dense_channels; ++i)
    channels.push_back(static_cast<uint16_t>(i * 3 % rows.cols));
  for (const uint16_t c : channels)
    for (int64_t t = 0; t < rows.rows; ++t) {
      values.push_back(f16_from_f32(rows.at(t, c)));
      kept[static_cast<std::size_t>(t * rows.cols + c)] = 1;
    }
  format.dense_channels = static_cast<int32_t>(channels.size());
  format.channels_at = put_halves(side.payload, channels);
  format.channel_values_at = put_halves(side.payload, values);
  std::vector<std::size_t> places;
  const auto wanted = static_cast<std::size_t>(std::ceil(spec.outliers * static_cast<double>(kept.size())));
  while (places.size() < wanted) {
    const std::size_t place = random() % kept.size();
    if (kept[place]) continue;
    kept[place] = 1;
    places.push_back(place);
  }
  std::sort(places.begin(), places.end());
  format.outliers = static_cast<int32_t>(places.size());
  for (format.place_bits = 1; (std::size_t{1} << format.place_bits) < kept.size();) ++format.place_bits;
  std::vector<uint16_t> list((places.size() * static_cast<std::size_t>(format.place_bits) + 15) / 16),
      outliers;
  for (std::size_t i = 0; i < places.size(); ++i) {
    outliers.push_back(f16_from_f32(rows.data[places[i]]));
    for (std::size_t bit = 0; bit < static_cast<std::size_t>(format.place_bits); ++bit) {
      const std::size_t at = i * static_cast<std::size_t>(format.place_bits) + bit;
      list[at / 16] = static_cast<uint16_t>(list[at / 16] | (places[i] >> bit & 1) << (at % 16));
    }
  }
  format.places_at = put_halves(side.payload, list);
  format.outlier_values_at = put_halves(side.payload, outliers);
  return kept;
}

// rows: [tokens, width], contiguous.
inline HostSide make_packed_side(const std::vector<float>& rows, int64_t width, const SideSpec& spec,
                                 unsigned seed) {
  const int64_t tokens = static_cast<int64_t>(rows.size()) / width;
  const MatView<const float> view(rows.data(), tokens, width);
  std::mt19937 random(seed);
  HostSide side;
  SideFormat& format = side.format;
  const int64_t all = spec.axis == ScaleAxis::kToken ? width : tokens;
  PackedPage page{.bits = side_bits(spec.kind),
                  .tokens = tokens,
                  .width = width,
                  .axis = spec.axis,
                  .group = spec.group > 0 ? spec.group : all,
                  .by_channel = is_by_channel(spec.kind)};
  format.kind = spec.kind;
  format.scale_by_token = spec.axis == ScaleAxis::kToken;
  format.width = static_cast<int32_t>(width);
  format.tokens = static_cast<int32_t>(tokens);
  format.group = static_cast<int32_t>(page.group);
  format.groups = static_cast<int32_t>(page.groups());
  const std::vector<uint8_t> kept = put_kept(side, spec, view, random);
  put_scales(side, spec, view, page, kept);
  std::vector<float> factors(static_cast<std::size_t>(tokens), 1.0f);
  if (spec.factors) {
    std::vector<uint16_t> halves;
    for (float& factor : factors) {
      halves.push_back(f16_from_f32(0.5f + static_cast<float>(random() % 1024) / 1024.0f));
      factor = f32_from_f16(halves.back());
    }
    format.factors_at = put_halves(side.payload, halves);
  }
  format.codes_at = static_cast<int32_t>(side.payload.size());
  side.payload.resize(side.payload.size() + static_cast<std::size_t>(page.code_bytes()));
  format.bytes = static_cast<int32_t>(side.payload.size());
  page.scales = reinterpret_cast<const uint16_t*>(side.payload.data() + format.scales_at);
  if (!spec.symmetric) page.zeros = reinterpret_cast<const uint16_t*>(side.payload.data() + format.zeros_at);
  page.codes = side.payload.data() + format.codes_at;
  pack_numbers(view, page, kept.data(), side.payload.data() + format.codes_at);

  side.numbers.resize(rows.size());
  std::vector<float> scratch(static_cast<std::size_t>(packed_scratch(1, page)));
  packed_decode(page, scratch.data(), {side.numbers.data(), tokens, width});
  for (std::size_t i = 0; i < rows.size(); ++i) {
    if (kept[i]) side.numbers[i] = f32_from_f16(f16_from_f32(rows[i]));
    side.numbers[i] *= factors[i / static_cast<std::size_t>(width)];
  }
  return side;
}

inline HostSide make_side(const std::vector<float>& rows, int64_t width, const SideSpec& spec,
                          unsigned seed) {
  return is_packed(spec.kind) ? make_packed_side(rows, width, spec, seed)
                              : make_dense_side(rows, width, spec.kind);
}

}  // namespace kva
