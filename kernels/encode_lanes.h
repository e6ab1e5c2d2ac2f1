// Writing pages on the device, as one thread or one lane of a warp does it: new tokens into dense pages,
// whole pages into packed codes, Hadamard rotation. The bytes are those that the CPU writes for the same
// rows.
#pragma once

#include <cmath>
#include <cstdint>

#include "kernels/decoder_lanes.h"
#include "kernels/device_page.h"
#include "kernels/host_device.h"
#include "kernels/packed_math.h"
#include "kernels/scale_math.h"

namespace kva {

// Stores one number as a dense side of `kind` has it.
KVA_HOST_DEVICE inline void put_dense(SideKind kind, std::byte* row, int64_t col, float value) {
  switch (kind) {
    case SideKind::kF32: reinterpret_cast<float*>(row)[col] = value; return;
    case SideKind::kF16: reinterpret_cast<uint16_t*>(row)[col] = f16_code(value); return;
    case SideKind::kBF16: reinterpret_cast<uint16_t*>(row)[col] = bf16_code(value); return;
    default:
      reinterpret_cast<uint8_t*>(row)[col] =
          fp8_code(value, kind == SideKind::kE4M3 ? Fp8::kE4M3 : Fp8::kE5M2);
  }
}

// New tokens: batch row r's K and V for KV head h go to the token rows that targets[r * kv_heads + h] names.
struct AppendTarget {
  std::byte* key = nullptr;  // the token's first byte in its page
  std::byte* value = nullptr;
};
struct AppendJob {
  const float* keys = nullptr;    // [rows, kv_heads * head_dim], before RoPE
  const float* values = nullptr;  // the same
  int64_t rows = 0;
  int32_t kv_heads = 0;
  int32_t head_dim = 0;
  const AppendTarget* targets = nullptr;
  SideKind key_kind = SideKind::kF16;  // dense ones
  SideKind value_kind = SideKind::kF16;
  // By how much each row's keys are turned: positions where keys are cached rotated, offsets in the page
  // where they are page-relative. rotary_dim 0: not at all.
  const int64_t* turns = nullptr;
  const float* inverse_frequencies = nullptr;
  int32_t rotary_dim = 0;

  friend bool operator==(const AppendJob&, const AppendJob&) = default;
};

// Channel `col` of a row counts the channels of all its heads.
KVA_HOST_DEVICE inline void append_one(const AppendJob& job, int64_t row, int64_t col) {
  const int64_t head = col / job.head_dim;
  const auto c = static_cast<int32_t>(col - head * job.head_dim);
  const AppendTarget& target = job.targets[row * job.kv_heads + head];
  const int64_t at = row * job.kv_heads * job.head_dim + col;
  put_dense(job.value_kind, target.value, c, job.values[at]);
  float key = job.keys[at];
  if (c < job.rotary_dim) {
    const int32_t half = job.rotary_dim / 2;
    const bool second = c >= half;
    const RotaryTurn turn = turn_at(job.turns[row], job.inverse_frequencies[second ? c - half : c]);
    key =
        second ? turned_second(job.keys[at - half], key, turn) : turned_first(key, job.keys[at + half], turn);
  }
  put_dense(job.key_kind, target.key, c, key);
}

// Entries of page tables: entry i goes to `to`'s place places[i].
struct PlaceJob {
  const DevicePage* entries = nullptr;
  const int64_t* places = nullptr;
  int64_t count = 0;
  DevicePage* to = nullptr;
};

KVA_HOST_DEVICE inline void place_one(const PlaceJob& job, int64_t i) {
  job.to[job.places[i]] = job.entries[i];
}

// A page side to be coded: rows [format.tokens, format.width], stride in numbers. All numbers are finite and
// within f16. Formats with numbers kept beside the codes, or factors, are not coded here.
struct PackJob {
  SideFormat format;
  const float* rows = nullptr;
  int64_t stride = 0;
  std::byte* payload = nullptr;
};

// Scale and zero of group `index`, by PackedPage::scale_of().
KVA_HOST_DEVICE inline void pack_scale(const PackJob& job, int32_t index) {
  const SideFormat& f = job.format;
  int32_t token = 0, tokens = f.tokens, channel = 0, channels = f.width;
  if (f.scale_by_token) {
    token = index / f.groups;
    tokens = 1;
    channel = (index - token * f.groups) * f.group;
    channels = f.groups == 1 ? f.width : smaller(f.group, f.width - channel);
  } else {
    channel = index % f.width;
    channels = 1;
    token = index / f.width * f.group;
    tokens = f.groups == 1 ? f.tokens : smaller(f.group, f.tokens - token);
  }
  float low = job.rows[token * job.stride + channel];
  float high = low;
  for (int32_t t = token; t < token + tokens; ++t)
    for (int32_t c = channel; c < channel + channels; ++c) {
      const float x = job.rows[t * job.stride + c];
      low = x < low ? x : low;
      high = x > high ? x : high;
    }
  const StoredScale stored = stored_scale(low, high, side_bits(f.kind), f.zeros_at < 0);
  reinterpret_cast<uint16_t*>(job.payload + f.scales_at)[index] = stored.scale;
  if (f.zeros_at >= 0) reinterpret_cast<uint16_t*>(job.payload + f.zeros_at)[index] = stored.zero;
}

// How many lanes (kernels/packed.h) a packed row has, and rows a page.
KVA_HOST_DEVICE inline int32_t packed_lanes(const SideFormat& f) {
  const int bits = side_bits(f.kind);
  return packed_bytes(bits, is_by_channel(f.kind) ? f.tokens : f.width) / (bits == 3 ? 3 : 1);
}
KVA_HOST_DEVICE inline int32_t packed_rows(const SideFormat& f) {
  return is_by_channel(f.kind) ? f.width : f.tokens;
}

// Lane `lane` of packed row `row`, once the scales are there.
KVA_HOST_DEVICE inline void pack_lane(const PackJob& job, int32_t row, int32_t lane) {
  const SideFormat& f = job.format;
  const int bits = side_bits(f.kind);
  const bool by_channel = is_by_channel(f.kind);
  const int32_t length = by_channel ? f.tokens : f.width;
  const int log2 = bits == 8 ? 0 : bits == 4 ? 1 : bits == 2 ? 2 : 3;
  const int32_t block = lane / 16;
  const int32_t left = length - (block << (4 + log2));
  const int32_t lanes = left >= 16 << log2 ? 16 : (left + (1 << log2) - 1) >> log2;
  const int32_t of_block = lane - block * 16;
  const auto* payload = reinterpret_cast<const uint8_t*>(job.payload);
  uint32_t word = 0;
  for (int32_t slice = 0; slice < 1 << log2; ++slice) {
    const int32_t within = slice * lanes + of_block;
    if (within >= left) break;
    const int32_t index = (block << (4 + log2)) + within;
    const int32_t token = by_channel ? index : row;
    const int32_t channel = by_channel ? row : index;
    const int32_t of = scale_index(f, token, channel);
    const float scale = f16_at(payload, f.scales_at, of);
    const float zero = f.zeros_at < 0 ? 0.0f : f16_at(payload, f.zeros_at, of);
    word |= number_code(job.rows[token * job.stride + channel], scale, zero, bits, f.zeros_at < 0)
            << (bits * slice);
  }
  const int lane_bytes = bits == 3 ? 3 : 1;
  auto* out = reinterpret_cast<uint8_t*>(job.payload) + f.codes_at +
              int64_t{row} * packed_bytes(bits, length) + int64_t{block} * 16 * lane_bytes + of_block;
  for (int plane = 0; plane < lane_bytes; ++plane)
    out[int64_t{plane} * lanes] = static_cast<uint8_t>(word >> (8 * plane));
}

// A row becomes row · H / sqrt(cols) in place, as hadamard_rows(); cols is a power of two. shared: cols
// floats of this warp's own.
template <class Warp>
KVA_LANE_CODE void hadamard_row(Warp& warp, float* row, int32_t cols, float* shared) {
  for (int32_t i = warp.lane(); i < cols; i += 32) shared[i] = row[i];
  warp.sync();
  for (int32_t half = 1; half < cols; half *= 2) {
    for (int32_t pair = warp.lane(); pair < cols / 2; pair += 32) {
      const int32_t i = pair / half * 2 * half + pair % half;
      const float a = shared[i];
      const float b = shared[i + half];
      shared[i] = a + b;
      shared[i + half] = a - b;
    }
    warp.sync();
  }
  const float scale = 1.0f / sqrtf(static_cast<float>(cols));
  for (int32_t i = warp.lane(); i < cols; i += 32) row[i] = shared[i] * scale;
}

}  // namespace kva
