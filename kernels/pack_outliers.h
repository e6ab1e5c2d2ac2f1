// What is kept beside the codes of a page side: whole channels, and numbers far from the rest. A Team is that
// of kernels/pack_lanes.h.
#pragma once

#include <cmath>
#include <cstdint>

#include "kernels/device_page.h"
#include "kernels/host_device.h"
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

// Orders as farthest_numbers() (compressors/codecs/outliers.h) does: by distance to the group's mean in roots
// of its standard deviation; what is kept already comes last.
template <class Team>
KVA_LANE_CODE void measure_distances(Team& team, const Packing& p) {
  const SideFormat& f = p.format;
  double* moments = p.moments();
  team.each(scale_count(f), [&](int32_t group) {
    const GroupSpan span = group_span(f, group);
    const auto each = [&](const auto& take) {
      for (int32_t t = span.token; t < span.token + span.tokens; ++t)
        for (int32_t c = span.channel; c < span.channel + span.channels; ++c)
          if (!p.is_kept(t, c)) take(static_cast<double>(p.number(t, c)));
    };
    double sum = 0.0;
    double numbers = 0.0;
    each([&](double x) {
      sum += x;
      numbers += 1.0;
    });
    const double mean = sum / numbers;
    double squares = 0.0;
    each([&](double x) { squares += (x - mean) * (x - mean); });
    moments[int64_t{2} * group] = mean;
    moments[int64_t{2} * group + 1] = sqrt(sqrt(squares / numbers));
  });
  team.each(f.tokens * f.width, [&](int32_t i) {
    const int32_t token = i / f.width;
    const int32_t channel = i - token * f.width;
    const double* of = moments + int64_t{2} * scale_index(f, token, channel);
    if (p.kept()[i]) {
      p.keys()[i] = 0;
      return;
    }
    const double distance =
        of[1] > 0.0 ? fabs(static_cast<double>(p.number(token, channel)) - of[0]) / of[1] : 0.0;
    // Numbers that are not negative order like their bits.
    p.keys()[i] = bits_of(distance) + 1;
  });
}

// How many keys of the lane's part of them are over `key`, resp. equal to it.
KVA_LANE_CODE inline void count_keys(const uint64_t* keys, int32_t first, int32_t end, uint64_t key,
                                     int32_t* over, int32_t* equal) {
  *over = *equal = 0;
  for (int32_t i = first; i < end; ++i) {
    *over += keys[i] > key ? 1 : 0;
    *equal += keys[i] == key ? 1 : 0;
  }
}

// The places of the format's number of largest keys, of equal ones the first, ascending.
template <class Warp>
KVA_LANE_CODE void list_largest(Warp& warp, const Packing& p) {
  const int32_t numbers = p.format.tokens * p.format.width;
  const int32_t part = (numbers + 31) / 32;
  const int32_t first = smaller(warp.lane() * part, numbers);
  const int32_t end = smaller(first + part, numbers);
  const auto wanted = static_cast<float>(p.format.outliers);
  const uint64_t* keys = p.keys();
  // The last of them, bit by bit from the top: counts are whole numbers below 2^24.
  uint64_t last = 0;
  for (int bit = 63; bit >= 0; --bit) {
    const uint64_t tried = last | uint64_t{1} << bit;
    float count = 0.0f;
    for (int32_t i = first; i < end; ++i) count += keys[i] >= tried ? 1.0f : 0.0f;
    for (int mask = 16; mask > 0; mask /= 2) count += warp.shuffle_xor(count, mask);
    if (count >= wanted) last = tried;
  }
  int32_t* counts = p.counts();
  int32_t* own = counts + int64_t{2} * warp.lane();
  count_keys(keys, first, end, last, own, own + 1);
  warp.sync();
  int32_t over = 0;
  int32_t place = 0;
  int32_t equals = 0;
  for (int lane = 0; lane < 32; ++lane) {
    over += counts[int64_t{2} * lane];
    if (lane < warp.lane()) {
      place += counts[int64_t{2} * lane];
      equals += counts[int64_t{2} * lane + 1];
    }
  }
  int32_t left = p.format.outliers - over - equals;  // of those equal to the last one
  place += smaller(equals, p.format.outliers - over);
  for (int32_t i = first; i < end; ++i) {
    if (keys[i] < last || (keys[i] == last && left-- <= 0)) continue;
    if (place < p.format.outliers) p.outliers()[place++] = i;
  }
}

template <class Team>
KVA_LANE_CODE void keep_outliers(Team& team, const Packing& p) {
  const SideFormat& f = p.format;
  measure_distances(team, p);
  team.warp([&](auto& warp) { list_largest(warp, p); });
  const int32_t* places = p.outliers();
  team.each(f.outliers, [&](int32_t i) {
    const int32_t token = places[i] / f.width;
    p.halves(f.outlier_values_at)[i] = f16_code(p.number(token, places[i] - token * f.width));
    p.kept()[places[i]] = 1;
  });
  // Byte by byte, since neighbours share one.
  team.each(f.outlier_values_at - f.places_at, [&](int32_t byte) {
    uint32_t word = 0;
    for (int32_t bit = 0; bit < 8; ++bit) {
      const int64_t of_list = int64_t{byte} * 8 + bit;
      const int64_t i = of_list / f.place_bits;
      if (i < f.outliers) word |= (static_cast<uint32_t>(places[i]) >> (of_list % f.place_bits) & 1u) << bit;
    }
    p.payload()[f.places_at + byte] = static_cast<uint8_t>(word);
  });
}

}  // namespace kva
