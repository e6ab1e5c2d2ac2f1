// Sides of SideKind::kScaledBase on the device: the bytes that MiniCache's codec
// (compressors/codecs/minicache_codec.h) writes for the same rows and directions. A Team is that of
// kernels/pack_lanes.h.
#pragma once

#include <cstdint>

#include "kernels/device_page.h"
#include "kernels/direction_math.h"
#include "kernels/host_device.h"
#include "kernels/value_math.h"

namespace kva {

// Whether token `token` is among the format's number of tokens farthest from their directions, of equally far
// ones the first. closeness: [tokens].
KVA_LANE_CODE inline bool is_far(const SideFormat& f, const double* closeness, int32_t token) {
  int32_t farther = 0;
  for (int32_t other = 0; other < f.tokens; ++other)
    farther += closeness[other] < closeness[token] || (closeness[other] == closeness[token] && other < token)
                   ? 1
                   : 0;
  return farther < f.retained;
}

// number(token, channel): of the rows. directions: [tokens, width], what the base stands for. closeness,
// kept: [tokens], scratch. *refused becomes 1 where a length is not finite or over f16's range.
template <class Team, class Number>
KVA_LANE_CODE void pack_scaled(Team& team, const SideFormat& f, const Number& number, const float* directions,
                               double* closeness, uint8_t* kept, std::byte* payload, int32_t* refused) {
  const auto halves = [&](int32_t at) { return reinterpret_cast<uint16_t*>(payload + at); };
  team.each(f.tokens, [&](int32_t t) {
    const AlongDirection along =
        along_direction([&](int32_t c) { return number(t, c); }, directions + int64_t{t} * f.width, f.width);
    if (!along.can_be_stored()) *refused = 1;
    halves(f.factors_at)[t] = f16_code(along.factor());
    closeness[t] = along.closeness();
  });
  if (f.retained == 0) return;
  team.each(f.tokens, [&](int32_t t) { kept[t] = is_far(f, closeness, t) ? 1 : 0; });
  team.each(f.tokens, [&](int32_t t) {
    if (kept[t] == 0) return;
    int32_t before = 0;
    for (int32_t other = 0; other < t; ++other) before += kept[other];
    // Closeness that is not a number, of what is refused, is not ordered.
    if (before < f.retained) halves(f.retained_at)[before] = static_cast<uint16_t>(t);
  });
  team.each(f.retained * f.width, [&](int32_t i) {
    const int32_t of = i / f.width;
    halves(f.retained_rows_at)[i] = f16_code(number(halves(f.retained_at)[of], i - of * f.width));
  });
}

}  // namespace kva
