// What is kept beside the codes of a page side: whole channels, and numbers far from the rest. A Team is that
// of kernels/pack_lanes.h.
#pragma once

#include <cmath>
#include <cstdint>

#include "kernels/device_page.h"
#include "kernels/host_device.h"
#include "kernels/largest_lanes.h"
#include "kernels/outlier_math.h"
#include "kernels/packed_math.h"
#include "kernels/packing.h"
#include "kernels/scale_math.h"
#include "kernels/value_math.h"

namespace kva {

// Tokens and channels of the group with scale `index`.
struct GroupSpan {
  int32_t token = 0, tokens = 1;
  int32_t channel = 0, channels = 1;
};
KVA_HOST_DEVICE inline GroupSpan group_span(const SideFormat& f, int32_t index) {
  GroupSpan span;
  if (f.scale_by_token) {
    span.token = index / f.groups;
    span.channel = (index - span.token * f.groups) * f.group;
    span.channels = f.groups == 1 ? f.width : smaller(f.group, f.width - span.channel);
  } else {
    span.channel = index % f.width;
    span.token = index / f.width * f.group;
    span.tokens = f.groups == 1 ? f.tokens : smaller(f.group, f.tokens - span.token);
  }
  return span;
}
KVA_HOST_DEVICE inline int32_t scale_count(const SideFormat& f) {
  return f.groups * (f.scale_by_token ? f.tokens : f.width);
}

// The channels of the widest ranges, of equal ones the first, as f16.
template <class Team>
KVA_LANE_CODE void keep_channels(Team& team, const Packing& p) {
  const SideFormat& f = p.format;
  float* ranges = p.ranges();
  team.each(f.width, [&](int32_t c) {
    float low = p.number(0, c);
    float high = low;
    for (int32_t t = 1; t < f.tokens; ++t) {
      const float x = p.number(t, c);
      low = x < low ? x : low;
      high = high < x ? x : high;
    }
    ranges[c] = high - low;
  });
  const auto is_wide = [&](int32_t c) {
    int32_t wider = 0;
    for (int32_t other = 0; other < f.width; ++other)
      wider += ranges[other] > ranges[c] || (ranges[other] == ranges[c] && other < c) ? 1 : 0;
    return wider < f.dense_channels;
  };
  team.each(f.width, [&](int32_t c) {
    const bool wide = is_wide(c);
    for (int32_t t = 0; t < f.tokens; ++t) p.kept()[t * f.width + c] = wide ? 1 : 0;
  });
  team.each(f.width, [&](int32_t c) {
    if (!p.kept()[c]) return;
    int32_t before = 0;
    for (int32_t other = 0; other < c; ++other) before += p.kept()[other];
    p.halves(f.channels_at)[before] = static_cast<uint16_t>(c);
    for (int32_t t = 0; t < f.tokens; ++t)
      p.halves(f.channel_values_at)[before * f.tokens + t] = f16_code(p.number(t, c));
  });
}

// Orders as farthest_numbers() (compressors/codecs/outliers.h) does; what is kept already comes last.
template <class Team>
KVA_LANE_CODE void measure_distances(Team& team, const Packing& p) {
  const SideFormat& f = p.format;
  Spread* spreads = p.spreads();
  team.each(scale_count(f), [&](int32_t group) {
    const GroupSpan span = group_span(f, group);
    const auto token = [&](int32_t i) { return f.scale_by_token ? span.token : span.token + i; };
    const auto channel = [&](int32_t i) { return f.scale_by_token ? span.channel + i : span.channel; };
    spreads[group] = group_spread(
        span.tokens * span.channels, [&](int32_t i) { return p.number(token(i), channel(i)); },
        [&](int32_t i) { return p.is_kept(token(i), channel(i)); });
  });
  team.each(f.tokens * f.width, [&](int32_t i) {
    const int32_t token = i / f.width;
    const int32_t channel = i - token * f.width;
    const Spread& spread = spreads[scale_index(f, token, channel)];
    p.keys()[i] = p.kept()[i] ? 0 : distance_key(distance_of(p.number(token, channel), spread));
  });
}

// The format's list of places, place(i) being the i-th. By halves, since neighbours share bytes.
template <class Team, class Place>
KVA_LANE_CODE void put_places(Team& team, const SideFormat& f, std::byte* payload, const Place& place) {
  auto* list = reinterpret_cast<uint16_t*>(payload + f.places_at);
  team.each((f.outlier_values_at - f.places_at) / 2, [&](int32_t half) {
    int32_t i = half * 16 / f.place_bits;
    int32_t at = i * f.place_bits - half * 16;  // where it begins: before the half, or in it
    uint32_t word = 0;
    for (; at < 16 && i < f.outliers; ++i, at += f.place_bits) {
      const auto bits = static_cast<uint32_t>(place(i));
      word |= at < 0 ? bits >> -at : bits << at;
    }
    list[half] = static_cast<uint16_t>(word);
  });
}

template <class Team>
KVA_LANE_CODE void keep_outliers(Team& team, const Packing& p) {
  const SideFormat& f = p.format;
  const int32_t numbers = f.tokens * f.width;
  measure_distances(team, p);
  const LargestMemory memory = largest_memory(p.largest(), numbers);
  const auto place_of = [](int32_t i) { return i; };
  choose_largest(
      team, memory, numbers, numbers, f.outliers, [&](int32_t i) { return p.keys()[i]; }, place_of);
  each_chosen(team, memory, numbers, place_of, [&](int32_t i, int32_t place) {
    const int32_t token = place / f.width;
    p.halves(f.outlier_values_at)[i] = f16_code(p.number(token, place - token * f.width));
    p.kept()[place] = 1;
    p.outliers()[i] = place;
  });
  put_places(team, f, p.side.payload, [&](int32_t i) { return p.outliers()[i]; });
}

}  // namespace kva
