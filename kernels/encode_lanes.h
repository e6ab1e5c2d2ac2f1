// Writing pages on the device, as one thread or one lane of a warp does it: new tokens into dense pages,
// Hadamard rotation. The bytes are those that the CPU writes for the same rows.
#pragma once

#include <cmath>
#include <cstdint>

#include "kernels/decoder_lanes.h"
#include "kernels/device_page.h"
#include "kernels/host_device.h"

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
