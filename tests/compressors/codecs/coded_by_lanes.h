// Pages coded by the device's lane code on the host, as a codec's formats ask for it.
#pragma once

#include <cstddef>
#include <cstdint>
#include <optional>
#include <random>
#include <vector>

#include "kernels/convert.h"
#include "kernels/pack_lanes.h"
#include "runtime/kv/codec.h"
#include "runtime/kv/side_memory.h"
#include "tests/kernels/host_block.h"

namespace kva {

// Rows as a page that fills has them, and the numbers that they are.
struct OpenRows {
  OpenRows(std::vector<float> rows, int64_t width_, DType type_)
      : type(type_), width(width_), tokens(std::ssize(rows) / width_), numbers(std::move(rows)) {
    bytes.resize(numbers.size() * static_cast<std::size_t>(dtype_bytes(type)));
    from_f32(numbers.data(), type, bytes.data(), std::ssize(numbers));
    to_f32(bytes.data(), type, numbers.data(), std::ssize(numbers));
  }
  MatView<const float> view() const { return {numbers.data(), tokens, width}; }
  SideKind kind() const {
    return type == DType::kF32 ? SideKind::kF32 : type == DType::kF16 ? SideKind::kF16 : SideKind::kBF16;
  }

  DType type;
  int64_t width;
  int64_t tokens;
  std::vector<float> numbers;
  std::vector<std::byte> bytes;
};

// Reproducible numbers of a normal distribution.
inline std::vector<float> normal_rows(int64_t count, unsigned seed) {
  std::mt19937 random(seed);
  std::normal_distribution<float> normal;
  std::vector<float> rows(static_cast<std::size_t>(count));
  for (float& x : rows) x = normal(random);
  return rows;
}

inline std::vector<std::byte> encoded_by(const SideCodec& codec, MatView<const float> rows,
                                         const SideData& base = {}) {
  std::vector<std::byte> payload(static_cast<std::size_t>(codec.bytes(rows.rows, rows.cols)),
                                 std::byte{0x5a});
  codec.encode(rows, base, payload.data());
  return payload;
}

// A side that is coded already, on which others build.
struct BaseSide {
  const SideCodec* codec = nullptr;
  std::vector<std::byte> payload;
};

// Formats as a device gets them, what they share being the host's.
inline SideFormat format_here(const SideCodec& codec, int64_t tokens, int64_t width) {
  SideFormat format = codec.device_format(tokens, width).value();
  const DeviceArrays arrays = codec.device_arrays();
  for (std::size_t i = 0; i < arrays.size(); ++i)
    if (arrays[i]) format.shared[i] = arrays[i]->data();
  return format;
}

struct CodedByLanes {
  std::vector<std::byte> payload;
  bool refused = false;
};

// others: with which rows are blended, `share` of the way.
inline CodedByLanes coded_by_lanes(const SideCodec& codec, const OpenRows& rows,
                                   const OpenRows* others = nullptr, double share = 0.0,
                                   const BaseSide& base = {}) {
  PackJob job;
  if (base.codec) {
    job.base = format_here(*base.codec, rows.tokens, rows.width);
    job.format = codec.device_format_on(job.base, rows.tokens, rows.width).value();
  } else {
    job.format = format_here(codec, rows.tokens, rows.width);
  }
  job.split_front();
  job.source_kind = rows.kind();
  job.tokens = static_cast<int32_t>(rows.tokens);
  job.blends = others != nullptr;
  job.share = share;
  if (job.format.on_basis) job.basis = codec.device_basis().array->data() + codec.device_basis().offset;
  CodedByLanes coded{std::vector<std::byte>(static_cast<std::size_t>(codec.bytes(rows.tokens, rows.width)),
                                            std::byte{0xa5})};
  std::vector<double> scratch(static_cast<std::size_t>(pack_scratch(job).bytes / 8) + 2);
  const PackSide side{.source = rows.bytes.data(),
                      .other_source = others ? others->bytes.data() : nullptr,
                      .base = base.payload.data(),
                      .payload = coded.payload.data()};
  int32_t refused = 0;
  job.sides = &side;
  job.count = 1;
  job.scratch = reinterpret_cast<std::byte*>(scratch.data());
  job.refused = &refused;
  HostWarp warp;
  HostBlock team(warp);
  pack_side(team, job, 0);
  coded.refused = refused != 0;
  return coded;
}

}  // namespace kva
