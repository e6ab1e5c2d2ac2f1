// Dense page sides into packed codes on the device, or tokens of several pages into a page of their own: the
// bytes are those that the CPU's codec writes for the same rows (of factors_at within an f16's last digit).
//
// A Team is the threads that code one side together: each(count, f) calls f(0) to f(count - 1), warp(f) hands
// f one warp (kernels/attention_keys.h); behind both all see what all have written.
#pragma once

#include <cmath>
#include <cstdint>

#include "kernels/decoder_lanes.h"
#include "kernels/device_page.h"
#include "kernels/encode_lanes.h"
#include "kernels/host_device.h"
#include "kernels/packed_math.h"
#include "kernels/scale_math.h"
#include "kernels/value_math.h"

namespace kva {

// Where a side's rows come from, and where it goes.
struct PackSide {
  const std::byte* source = nullptr;       // dense rows, one behind the other; or
  const std::byte* const* rows = nullptr;  // where each of them is
  std::byte* payload = nullptr;
};

struct PackJob {
  SideFormat format;  // what is written: packed; or dense, then rows of its kind are only moved
  SideKind source_kind = SideKind::kF16;
  int32_t tokens = 0;
  const PackSide* sides = nullptr;
  int32_t count = 0;
  std::byte* scratch = nullptr;  // pack_scratch(format).bytes for each side
  // Becomes 1 where a number that is to be coded is not finite or beyond f16: its side is not whole then.
  int32_t* refused = nullptr;
};

// What coding a side takes beside its payload, in bytes from a start that is 16-byte aligned.
struct PackScratch {
  int32_t numbers_at = 0;   // f32 [tokens, width], turned; none without Hadamard coordinates
  int32_t keys_at = 0;      // u64 [tokens, width]: how far numbers are from their group's mean, in order
  int32_t moments_at = 0;   // f64 [groups, 2]: mean, root of the standard deviation
  int32_t ranges_at = 0;    // f32 [width]
  int32_t outliers_at = 0;  // i32 [outliers]: their places
  int32_t counts_at = 0;    // i32 [32, 2], of lanes
  int32_t kept_at = 0;      // u8 [tokens, width]: kept beside the codes
  int64_t bytes = 0;
};
KVA_HOST_DEVICE constexpr PackScratch pack_scratch(const SideFormat& f) {
  PackScratch at;
  int32_t end = 0;
  const auto room = [&end](int32_t bytes) {
    const int32_t first = end;
    end += (bytes + 15) / 16 * 16;
    return first;
  };
  const int32_t numbers = f.tokens * f.width;
  const bool keeps = is_packed(f.kind) && (f.outliers > 0 || f.dense_channels > 0);
  at.numbers_at = room(is_packed(f.kind) && f.hadamard ? numbers * 4 : 0);
  at.keys_at = room(keeps ? numbers * 8 : 0);
  at.moments_at = room(keeps ? f.groups * (f.scale_by_token ? f.tokens : f.width) * 16 : 0);
  at.ranges_at = room(keeps ? f.width * 4 : 0);
  at.outliers_at = room(keeps ? f.outliers * 4 : 0);
  at.counts_at = room(keeps ? 256 : 0);
  at.kept_at = room(keeps ? numbers : 0);
  at.bytes = end;
  return at;
}

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

// How many lanes (kernels/packed.h) a packed row has, and rows a page.
KVA_HOST_DEVICE inline int32_t packed_lanes(const SideFormat& f) {
  const int bits = side_bits(f.kind);
  return packed_bytes(bits, is_by_channel(f.kind) ? f.tokens : f.width) / (bits == 3 ? 3 : 1);
}
KVA_HOST_DEVICE inline int32_t packed_rows(const SideFormat& f) {
  return is_by_channel(f.kind) ? f.width : f.tokens;
}

// One side on its way.
struct Packing {
  KVA_LANE_CODE Packing(const PackJob& job, int32_t index)
      : format(job.format),
        side(job.sides[index]),
        source_kind(job.source_kind),
        at(pack_scratch(job.format)),
        scratch(job.scratch + at.bytes * index),
        keeps(job.format.outliers > 0 || job.format.dense_channels > 0) {}

  KVA_LANE_CODE const std::byte* row(int32_t token) const {
    const int32_t row_bytes = format.width * side_bits(source_kind) / 8;
    return side.rows ? side.rows[token] : side.source + int64_t{token} * row_bytes;
  }
  KVA_LANE_CODE float source_number(int32_t token, int32_t channel) const {
    return dense_number(source_kind, row(token), channel);
  }
  // In the coordinates that are coded.
  KVA_LANE_CODE float number(int32_t token, int32_t channel) const {
    return format.hadamard ? numbers()[token * format.width + channel] : source_number(token, channel);
  }
  KVA_LANE_CODE bool is_kept(int32_t token, int32_t channel) const {
    return keeps && kept()[token * format.width + channel] != 0;
  }
  KVA_LANE_CODE uint8_t* payload() const { return reinterpret_cast<uint8_t*>(side.payload); }
  KVA_LANE_CODE uint16_t* halves(int32_t offset) const {
    return reinterpret_cast<uint16_t*>(side.payload + offset);
  }
  KVA_LANE_CODE float* numbers() const { return reinterpret_cast<float*>(scratch + at.numbers_at); }
  KVA_LANE_CODE uint64_t* keys() const { return reinterpret_cast<uint64_t*>(scratch + at.keys_at); }
  KVA_LANE_CODE double* moments() const { return reinterpret_cast<double*>(scratch + at.moments_at); }
  KVA_LANE_CODE float* ranges() const { return reinterpret_cast<float*>(scratch + at.ranges_at); }
  KVA_LANE_CODE int32_t* outliers() const { return reinterpret_cast<int32_t*>(scratch + at.outliers_at); }
  KVA_LANE_CODE int32_t* counts() const { return reinterpret_cast<int32_t*>(scratch + at.counts_at); }
  KVA_LANE_CODE uint8_t* kept() const { return reinterpret_cast<uint8_t*>(scratch + at.kept_at); }

  const SideFormat& format;
  const PackSide& side;
  SideKind source_kind;
  PackScratch at;
  std::byte* scratch;
  bool keeps;
};

// Rows times H / sqrt(width), as kernels/hadamard.h.
template <class Team>
KVA_LANE_CODE void turn_rows(Team& team, const Packing& p) {
  const int32_t width = p.format.width;
  float* numbers = p.numbers();
  team.each(p.format.tokens * width, [&](int32_t i) { numbers[i] = p.source_number(i / width, i % width); });
  for (int32_t half = 1; half < width; half *= 2)
    team.each(p.format.tokens * (width / 2), [&](int32_t i) {
      const int32_t pair = i % (width / 2);
      float* first =
          numbers + (int64_t{i / (width / 2)} * width + int64_t{pair / half} * 2 * half + pair % half);
      const float a = first[0];
      const float b = first[half];
      first[0] = a + b;
      first[half] = a - b;
    });
  const float scale = 1.0f / sqrtf(static_cast<float>(width));
  team.each(p.format.tokens * width, [&](int32_t i) { numbers[i] *= scale; });
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

// Scale and zero of group `index`, by PackedPage::scale_of().
KVA_LANE_CODE inline void pack_scale(const Packing& p, int32_t index) {
  const SideFormat& f = p.format;
  const GroupSpan span = group_span(f, index);
  float low = INFINITY;
  float high = -INFINITY;
  for (int32_t t = span.token; t < span.token + span.tokens; ++t)
    for (int32_t c = span.channel; c < span.channel + span.channels; ++c) {
      if (p.is_kept(t, c)) continue;
      const float x = p.number(t, c);
      low = x < low ? x : low;
      high = x > high ? x : high;
    }
  if (low > high) low = high = 0.0f;
  const StoredScale stored = stored_scale(low, high, side_bits(f.kind), f.zeros_at < 0);
  p.halves(f.scales_at)[index] = stored.scale;
  if (f.zeros_at >= 0) p.halves(f.zeros_at)[index] = stored.zero;
}

KVA_LANE_CODE inline uint32_t code_of(const Packing& p, int32_t token, int32_t channel) {
  const SideFormat& f = p.format;
  const int bits = side_bits(f.kind);
  const bool symmetric = f.zeros_at < 0;
  if (p.is_kept(token, channel)) return symmetric ? 1u << (bits - 1) : 0u;
  const int32_t of = scale_index(f, token, channel);
  return number_code(p.number(token, channel), f16_at(p.payload(), f.scales_at, of),
                     symmetric ? 0.0f : f16_at(p.payload(), f.zeros_at, of), bits, symmetric);
}

// Lane `lane` of packed row `row`, once the scales are there.
KVA_LANE_CODE inline void pack_lane(const Packing& p, int32_t row, int32_t lane) {
  const SideFormat& f = p.format;
  const int bits = side_bits(f.kind);
  const bool by_channel = is_by_channel(f.kind);
  const int32_t length = by_channel ? f.tokens : f.width;
  const int log2 = bits == 8 ? 0 : bits == 4 ? 1 : bits == 2 ? 2 : 3;
  const int32_t block = lane / 16;
  const int32_t left = length - (block << (4 + log2));
  const int32_t lanes = left >= 16 << log2 ? 16 : (left + (1 << log2) - 1) >> log2;
  const int32_t of_block = lane - block * 16;
  uint32_t word = 0;
  for (int32_t slice = 0; slice < 1 << log2; ++slice) {
    const int32_t within = slice * lanes + of_block;
    if (within >= left) break;
    const int32_t index = (block << (4 + log2)) + within;
    word |= code_of(p, by_channel ? index : row, by_channel ? row : index) << (bits * slice);
  }
  const int lane_bytes = bits == 3 ? 3 : 1;
  uint8_t* out = p.payload() + f.codes_at + int64_t{row} * packed_bytes(bits, length) +
                 int64_t{block} * 16 * lane_bytes + of_block;
  for (int plane = 0; plane < lane_bytes; ++plane)
    out[int64_t{plane} * lanes] = static_cast<uint8_t>(word >> (8 * plane));
}

// By which the token that the codes give is to be multiplied to have the length that it had.
KVA_LANE_CODE inline void pack_factor(const Packing& p, int32_t token) {
  const SideFormat& f = p.format;
  double exact = 0.0;
  double coded = 0.0;
  for (int32_t c = 0; c < f.width; ++c) {
    const float x = p.number(token, c);
    const CodeScale of = code_scale(f, side_bits(f.kind), p.payload(), scale_index(f, token, c));
    const float y = p.is_kept(token, c) ? f16_value(f16_code(x))
                                        : fmaf(static_cast<float>(code_of(p, token, c)), of.scale, of.zero);
    exact += static_cast<double>(x) * static_cast<double>(x);
    coded += static_cast<double>(y) * static_cast<double>(y);
  }
  const double factor = coded > 0.0 ? sqrt(exact / coded) : 1.0;
  p.halves(f.factors_at)[token] = f16_code(static_cast<float>(factor < 65504.0 ? factor : 65504.0));
}

template <class Team>
KVA_LANE_CODE void pack_side(Team& team, const PackJob& job, int32_t index) {
  const SideFormat& f = job.format;
  const Packing p(job, index);
  if (!is_packed(f.kind)) {
    const int32_t words = f.bytes / 8;  // of a token
    if (job.source_kind != f.kind || f.bytes % 8 != 0) {
      team.each(job.tokens * f.width, [&](int32_t i) {
        const int32_t token = i / f.width;
        const int32_t channel = i - token * f.width;
        put_dense(f.kind, p.side.payload + int64_t{token} * f.bytes, channel,
                  p.source_number(token, channel));
      });
      return;
    }
    team.each(job.tokens * words, [&](int32_t i) {
      reinterpret_cast<uint64_t*>(p.side.payload)[i] =
          reinterpret_cast<const uint64_t*>(p.row(i / words))[i % words];
    });
    return;
  }
  if (f.hadamard) turn_rows(team, p);
  team.each(f.tokens * f.width, [&](int32_t i) {
    if (!(fabsf(p.number(i / f.width, i % f.width)) <= 65504.0f)) *job.refused = 1;
    if (p.keeps) p.kept()[i] = 0;
  });
  if (f.dense_channels > 0) keep_channels(team, p);
  if (f.outliers > 0) keep_outliers(team, p);
  team.each(scale_count(f), [&](int32_t i) { pack_scale(p, i); });
  const int32_t lanes = packed_lanes(f);
  team.each(packed_rows(f) * lanes, [&](int32_t i) { pack_lane(p, i / lanes, i % lanes); });
  if (f.factors_at >= 0) team.each(f.tokens, [&](int32_t t) { pack_factor(p, t); });
}

}  // namespace kva
