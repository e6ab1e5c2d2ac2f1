// Dense page sides into codes on the device, or tokens of several pages into a page of their own: the bytes
// are those that the CPU's codec writes for the same rows. They may differ where the CPU adds up or decodes
// with fused multiply-adds on some processors only: factors_at by an f16's last digit, nearest centroids
// where two are equally near but for rounding, and what builds on a packed base likewise.
//
// A Team is the threads that code one side together: each(count, f) calls f(0) to f(count - 1), warp(f) hands
// f one warp (kernels/attention_keys.h); behind both all see what all have written. take() and join() are for
// kernels/largest_lanes.h, shared() for kernels/pack_bare.h.
#pragma once

#include <cmath>
#include <cstdint>

#include "kernels/codebook_lanes.h"
#include "kernels/encode_lanes.h"
#include "kernels/host_device.h"
#include "kernels/pack_bare.h"
#include "kernels/pack_job.h"
#include "kernels/pack_outliers.h"
#include "kernels/packed_math.h"
#include "kernels/packing.h"
#include "kernels/scale_math.h"
#include "kernels/scaled_lanes.h"
#include "kernels/unpack_lanes.h"
#include "kernels/value_math.h"

namespace kva {

// How many lanes (kernels/packed.h) a packed row has, and rows a page.
KVA_HOST_DEVICE inline int32_t packed_lanes(const SideFormat& f) {
  const int bits = side_bits(f.kind);
  return packed_bytes(bits, is_by_channel(f.kind) ? f.tokens : f.width) / (bits == 3 ? 3 : 1);
}
KVA_HOST_DEVICE inline int32_t packed_rows(const SideFormat& f) {
  return is_by_channel(f.kind) ? f.width : f.tokens;
}

// What is written. A device may have code for each of them, which takes the registers of what it does alone.
enum class PackPath { kDense, kBits, kLevels, kLengths, kCentroids, kScaled };

KVA_HOST_DEVICE constexpr PackPath pack_path(const SideFormat& f) {
  if (!is_packed(f.kind)) return PackPath::kDense;
  if (f.kind == SideKind::kScaledBase) return PackPath::kScaled;
  if (f.kind == SideKind::kCentroids) return PackPath::kCentroids;
  if (!has_levels(f.kind)) return PackPath::kBits;
  return is_by_length(f) ? PackPath::kLengths : PackPath::kLevels;
}

// Scale and zero of group `index`, by PackedPage::scale_of().
template <PackPath path>
KVA_LANE_CODE void pack_scale(const Packing& p, int32_t index) {
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
  StoredScale stored;
  if constexpr (path == PackPath::kLevels)
    stored = level_range(low, high);
  else
    stored = stored_scale(low, high, side_bits(f.kind), f.zeros_at < 0);
  p.halves(f.scales_at)[index] = stored.scale;
  if (f.zeros_at >= 0) p.halves(f.zeros_at)[index] = stored.zero;
}

template <PackPath path>
KVA_LANE_CODE uint32_t code_of(const Packing& p, int32_t token, int32_t channel) {
  const SideFormat& f = p.format;
  if constexpr (path == PackPath::kLengths) return p.codes()[token * f.width + channel];
  const int bits = side_bits(f.kind);
  const bool symmetric = f.zeros_at < 0;
  if (p.is_kept(token, channel)) return symmetric ? 1u << (bits - 1) : 0u;
  const int32_t of = scale_index(f, token, channel);
  if constexpr (path == PackPath::kLevels) return level_code(f, p.payload(), of, p.number(token, channel));
  return number_code(p.number(token, channel), f16_at(p.payload(), f.scales_at, of),
                     symmetric ? 0.0f : f16_at(p.payload(), f.zeros_at, of), bits, symmetric);
}

// Lane `lane` of a packed row of `length` codes. code(i): the i-th of them.
template <class Code>
KVA_LANE_CODE void pack_lane(int bits, int32_t length, int32_t lane, const Code& code, uint8_t* row) {
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
    word |= code(index) << (bits * slice);
  }
  const int lane_bytes = bits == 3 ? 3 : 1;
  uint8_t* out = row + int64_t{block} * 16 * lane_bytes + of_block;
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
    const float y = p.is_kept(token, c)
                        ? f16_value(f16_code(x))
                        : fmaf(static_cast<float>(code_of<PackPath::kBits>(p, token, c)), of.scale, of.zero);
    exact += static_cast<double>(x) * static_cast<double>(x);
    coded += static_cast<double>(y) * static_cast<double>(y);
  }
  const double factor = coded > 0.0 ? sqrt(exact / coded) : 1.0;
  p.halves(f.factors_at)[token] = f16_code(static_cast<float>(factor < 65504.0 ? factor : 65504.0));
}

// All codes, once the scales are there.
template <PackPath path, class Team>
KVA_LANE_CODE void pack_codes(Team& team, const Packing& p) {
  const SideFormat& f = p.format;
  const int bits = side_bits(f.kind);
  const bool by_channel = is_by_channel(f.kind);
  const int32_t length = by_channel ? f.tokens : f.width;
  const int32_t row_bytes = packed_bytes(bits, length);
  const int32_t lanes = packed_lanes(f);
  team.each(packed_rows(f) * lanes, [&](int32_t i) {
    const int32_t row = i / lanes;
    pack_lane(
        bits, length, i - row * lanes,
        [&](int32_t at) { return by_channel ? code_of<path>(p, at, row) : code_of<path>(p, row, at); },
        p.payload() + f.codes_at + int64_t{row} * row_bytes);
  });
  team.each(1, [&](int32_t) { pad_codes(f, p.side.payload, packed_rows(f) * row_bytes); });
}

template <class Team>
KVA_LANE_CODE void pack_centroids(Team& team, const Packing& p) {
  const SideFormat& f = p.format;
  const auto number = [&](int32_t token, int32_t channel) { return p.number(token, channel); };
  team.each(f.tokens * f.width, [&](int32_t i) {
    if (!(fabsf(p.number(i / f.width, i % f.width)) <= 3.4028235e38f)) *p.job.refused = 1;
  });
  uint8_t* codes = p.codes();
  // Neighbouring threads take the same part: they read the same centroids.
  team.each(f.tokens * f.parts, [&](int32_t i) {
    const int32_t part = i / f.tokens;
    const int32_t token = i - part * f.tokens;
    codes[token * f.parts + part] = nearest_centroid(f, number, token, part);
  });
  const int32_t row_bytes = packed_bytes(f.code_bits, f.parts);
  const int32_t lanes = row_bytes / (f.code_bits == 3 ? 3 : 1);
  team.each(f.tokens * lanes, [&](int32_t i) {
    const int32_t token = i / lanes;
    pack_lane(
        f.code_bits, f.parts, i - token * lanes,
        [&](int32_t part) { return static_cast<uint32_t>(codes[token * f.parts + part]); },
        p.payload() + f.codes_at + int64_t{token} * row_bytes);
  });
}

// Rows of numbers, or as they are.
template <class Team>
KVA_LANE_CODE void pack_dense(Team& team, const Packing& p) {
  const SideFormat& f = p.format;
  if (f.kind == p.job.source_kind && !p.made && f.bytes % 8 == 0) {
    const int32_t words = f.bytes / 8;  // of a token
    team.each(p.job.tokens * words, [&](int32_t i) {
      reinterpret_cast<uint64_t*>(p.side.payload)[i] =
          reinterpret_cast<const uint64_t*>(p.row(i / words))[i % words];
    });
    return;
  }
  team.each(p.job.tokens * f.width,
            [&](int32_t i) { put_dense(f.kind, p.side.payload, i, p.number(i / f.width, i % f.width)); });
}

template <class Team>
KVA_LANE_CODE void pack_scaled(Team& team, const Packing& p) {
  const SideFormat& f = p.format;
  unpack_tokens(team, p.job.base, p.side.base, 0, f.tokens, p.numbers());
  pack_scaled(
      team, f, [&](int32_t token, int32_t channel) { return p.source_number(token, channel); }, p.numbers(),
      p.moments(), p.kept(), p.side.payload, p.job.refused);
}

template <PackPath path, class Team>
KVA_LANE_CODE void pack_rows(Team& team, const Packing& p) {
  const SideFormat& f = p.format;
  const int32_t front = p.job.front;
  const auto number = [&](int32_t token, int32_t channel) { return p.number(token, channel); };
  if (front > 0)
    team.each(front * f.width,
              [&](int32_t i) { p.halves(0)[i] = f16_code(number(i / f.width - front, i % f.width)); });
  if constexpr (path == PackPath::kLengths) {
    code_by_length(team, f, number, p.moments(), p.codes(), p.payload(), p.job.refused);
  } else {
    team.each(f.tokens * f.width, [&](int32_t i) {
      if (!(fabsf(number(i / f.width, i % f.width)) <= 65504.0f)) *p.job.refused = 1;
      if (p.keeps) p.kept()[i] = 0;
    });
    if (f.dense_channels > 0) keep_channels(team, p);
    if (f.outliers > 0) keep_outliers(team, p);
    team.each(scale_count(f), [&](int32_t i) { pack_scale<path>(p, i); });
  }
  pack_codes<path>(team, p);
  if constexpr (path == PackPath::kBits)
    if (f.factors_at >= 0) team.each(f.tokens, [&](int32_t t) { pack_factor(p, t); });
}

// The job's path and whether it makes_numbers().
template <PackPath path, bool makes, class Team>
KVA_LANE_CODE void pack_side_by(Team& team, const PackJob& job, int32_t index) {
  const Packing p(job, index);
  if constexpr (makes) make_numbers(team, p);
  if constexpr (path == PackPath::kDense)
    pack_dense(team, p);
  else if constexpr (path == PackPath::kScaled)
    pack_scaled(team, p);
  else if constexpr (path == PackPath::kCentroids)
    pack_centroids(team, p);
  else
    pack_rows<path>(team, p);
}

// Calls body.run<path, makes>() of the job, or what with_bare_kinds() calls. Centroids are of tokens as they
// are, and so is what scales a base.
template <class Body>
void with_pack_path(const PackJob& job, const Body& body) {
  const bool makes = makes_numbers(job);
  if (packs_bare(job)) return with_bare_kinds(job, body);
  switch (pack_path(job.format)) {
    case PackPath::kDense:
      return makes ? body.template run<PackPath::kDense, true>()
                   : body.template run<PackPath::kDense, false>();
    case PackPath::kBits:
      return makes ? body.template run<PackPath::kBits, true>() : body.template run<PackPath::kBits, false>();
    case PackPath::kLevels:
      return makes ? body.template run<PackPath::kLevels, true>()
                   : body.template run<PackPath::kLevels, false>();
    case PackPath::kLengths:
      return makes ? body.template run<PackPath::kLengths, true>()
                   : body.template run<PackPath::kLengths, false>();
    case PackPath::kCentroids: return body.template run<PackPath::kCentroids, false>();
    case PackPath::kScaled: return body.template run<PackPath::kScaled, false>();
  }
}

template <class Team>
struct PackOnTeam {
  Team& team;
  const PackJob& job;
  int32_t index;

  template <PackPath path, bool makes>
  void run() const {
    pack_side_by<path, makes>(team, job, index);
  }
  template <SideKind kind, SideKind source, bool has_outliers, bool of_tokens>
  void run_bare() const {
    BarePacking<kind, source, has_outliers, of_tokens, Team>(team, job, index).run();
  }
};

// One side, where the host runs the team.
template <class Team>
void pack_side(Team& team, const PackJob& job, int32_t index) {
  with_pack_path(job, PackOnTeam<Team>{team, job, index});
}

}  // namespace kva
