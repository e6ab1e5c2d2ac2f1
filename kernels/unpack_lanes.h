// The numbers of a page side's tokens on the device, as its codec's decode() gives them on a CPU with
// fused multiply-adds. A Team is that of kernels/pack_lanes.h.
#pragma once

#include <cmath>
#include <cstddef>
#include <cstdint>

#include "kernels/device_page.h"
#include "kernels/host_device.h"
#include "kernels/packed_math.h"
#include "kernels/value_math.h"

namespace kva {

// Number `i` of dense rows.
KVA_HOST_DEVICE inline float dense_number(SideKind kind, const std::byte* rows, int64_t i) {
  switch (kind) {
    case SideKind::kF32: return reinterpret_cast<const float*>(rows)[i];
    case SideKind::kF16: return f16_value(reinterpret_cast<const uint16_t*>(rows)[i]);
    case SideKind::kBF16: return bf16_value(reinterpret_cast<const uint16_t*>(rows)[i]);
    default:
      return fp8_value(reinterpret_cast<const uint8_t*>(rows)[i],
                       kind == SideKind::kE4M3 ? Fp8::kE4M3 : Fp8::kE5M2);
  }
}

// Whether unpack_tokens() can: kinds that say all of a token, in the token's own coordinates.
KVA_HOST_DEVICE constexpr bool unpacks(const SideFormat& format) {
  return format.kind < SideKind::kCentroids && !format.hadamard && !format.on_basis && !has_parts(format);
}

// What the codes of a token's number stand for, without factors and what is kept beside them.
KVA_LANE_CODE inline float coded_number(const SideFormat& f, const uint8_t* payload, int32_t token,
                                        int32_t channel) {
  const int bits = side_bits(f.kind);
  const bool by_channel = is_by_channel(f.kind);
  const int32_t length = by_channel ? f.tokens : f.width;
  const int32_t row = by_channel ? channel : token;
  const uint32_t code = packed_code(payload + f.codes_at + int64_t{row} * packed_bytes(bits, length), bits,
                                    length, by_channel ? token : channel);
  const int32_t scale = scale_index(f, token, channel);
  if (!has_levels(f.kind)) {
    const CodeScale of = code_scale(f, bits, payload, scale);
    return fmaf(static_cast<float>(code), of.scale, of.zero);
  }
  const CodeScale of = level_scale(f, payload, scale);
  return fmaf(f16_value(static_cast<const uint16_t*>(f.shared[kSharedNumbers])[code]), of.scale, of.zero);
}

// Tokens [first, first + tokens) of a side whose format unpacks(), as rows [tokens, width].
template <class Team>
KVA_LANE_CODE void unpack_tokens(Team& team, const SideFormat& f, const std::byte* side, int32_t first,
                                 int32_t tokens, float* rows) {
  const int32_t width = f.width;
  const auto* payload = reinterpret_cast<const uint8_t*>(side);
  if (!is_packed(f.kind)) {
    team.each(tokens * width, [&](int32_t i) { rows[i] = dense_number(f.kind, side, first * width + i); });
    return;
  }
  team.each(tokens * width,
            [&](int32_t i) { rows[i] = coded_number(f, payload, first + i / width, i % width); });
  if (f.outliers > 0) {
    const auto place = [&](int32_t token) { return static_cast<uint32_t>(token * width); };
    const int32_t from = first_outlier(f, payload, place(first));
    team.each(first_outlier(f, payload, place(first + tokens)) - from, [&](int32_t i) {
      rows[listed_place(payload + f.places_at, f.place_bits, from + i) - place(first)] =
          f16_at(payload, f.outlier_values_at, from + i);
    });
  }
  if (f.dense_channels > 0)
    team.each(f.dense_channels * tokens, [&](int32_t i) {
      const int32_t of = i / tokens;
      const int32_t token = i - of * tokens;
      const int32_t channel = reinterpret_cast<const uint16_t*>(payload + f.channels_at)[of];
      rows[token * width + channel] = f16_at(payload, f.channel_values_at, of * f.tokens + first + token);
    });
  if (f.factors_at >= 0)
    team.each(tokens * width,
              [&](int32_t i) { rows[i] *= f16_at(payload, f.factors_at, first + i / width); });
}

// Neighbouring tokens of a side, and where their rows go.
struct UnpackRun {
  const std::byte* side = nullptr;
  float* rows = nullptr;
  int32_t format = 0;  // index of the side's SideFormat, which unpacks()
  int32_t first = 0;
  int32_t tokens = 0;
};

struct UnpackJob {
  const SideFormat* formats = nullptr;
  const UnpackRun* runs = nullptr;
  int32_t count = 0;
};

template <class Team>
KVA_LANE_CODE void unpack_run(Team& team, const UnpackJob& job, int32_t index) {
  const UnpackRun& run = job.runs[index];
  unpack_tokens(team, job.formats[run.format], run.side, run.first, run.tokens, run.rows);
}

}  // namespace kva
