// What DeviceOps::pack() is asked for: page sides that are to be coded on the device (kernels/pack_lanes.h).
#pragma once

#include <cstddef>
#include <cstdint>

#include "kernels/device_page.h"
#include "kernels/host_device.h"
#include "kernels/largest_lanes.h"

namespace kva {

// Where a side's rows come from, and where it goes.
struct PackSide {
  const std::byte* source = nullptr;       // dense rows, one behind the other; or
  const std::byte* const* rows = nullptr;  // where each of them is
  // The same of the rows that PackJob::blends with these.
  const std::byte* other_source = nullptr;
  const std::byte* const* other_rows = nullptr;
  const std::byte* base = nullptr;  // of kScaledBase: the payload of what it builds on
  std::byte* payload = nullptr;
};

struct PackJob {
  SideFormat format;  // what is written: dense or packed, of the tokens behind the front
  int32_t front = 0;  // tokens before them, f16 rows at the payload's start
  SideKind source_kind = SideKind::kF16;
  int32_t tokens = 0;  // of a dense side
  // What is coded are directions between two rows, `share` of the way (direction_between()).
  bool blends = false;
  double share = 0.0;
  const void* basis = nullptr;  // f16 [width, width], on whose vectors rows are projected; null: on none
  SideFormat base;              // of kScaledBase: of what it builds on; unpacks()
  const PackSide* sides = nullptr;
  int32_t count = 0;
  std::byte* scratch = nullptr;  // pack_scratch(job).bytes for each side
  // Becomes 1 where a number that is to be coded is not finite or beyond f16: its side is not whole then.
  int32_t* refused = nullptr;

  // The format is that of a whole side yet.
  void split_front() {
    front = format.front;
    format.front = 0;
    format.tokens -= front;
  }
};

KVA_HOST_DEVICE constexpr int32_t all_tokens(const PackJob& job) {
  return is_packed(job.format.kind) ? job.front + job.format.tokens : job.tokens;
}
// Whether numbers are made of rows before they are coded.
KVA_HOST_DEVICE constexpr bool makes_numbers(const PackJob& job) {
  return job.blends || job.format.hadamard || job.basis;
}
// Of levels, those that are multiplied by what gives a token its length, and by nothing else.
KVA_HOST_DEVICE constexpr bool is_by_length(const SideFormat& f) {
  return has_levels(f.kind) && f.zeros_at < 0;
}

// What coding a side takes beside its payload, in bytes from a start that is 16-byte aligned.
struct PackScratch {
  int32_t numbers_at = 0;   // f32 [tokens, width]: what is coded, where it is made; of kScaledBase its base's
  int32_t rows_at = 0;      // f32 [tokens, width]: what is projected
  int32_t keys_at = 0;      // u32 [tokens, width]: how far numbers are from their group's mean, in order
  int32_t spreads_at = 0;   // Spread [groups] (kernels/outlier_math.h)
  int32_t moments_at = 0;   // f64 [tokens]: closeness, or deviations from 0
  int32_t ranges_at = 0;    // f32 [width]
  int32_t outliers_at = 0;  // i32 [outliers]: their places
  int32_t largest_at = 0;   // kernels/largest_lanes.h
  int32_t kept_at = 0;      // u8 [tokens, width]: kept beside the codes
  int32_t codes_at = 0;     // u8 [tokens, width], or [tokens, parts]: codes, where others follow from them
  int64_t bytes = 0;
};
KVA_HOST_DEVICE constexpr PackScratch pack_scratch(const PackJob& job) {
  const SideFormat& f = job.format;
  PackScratch at;
  int32_t end = 0;
  const auto room = [&end](int32_t bytes) {
    const int32_t first = end;
    end += (bytes + 15) / 16 * 16;
    return first;
  };
  const int32_t numbers = f.tokens * f.width;
  const int32_t all_numbers = all_tokens(job) * f.width;
  const bool scaled = f.kind == SideKind::kScaledBase;
  const bool keeps = is_packed(f.kind) && (f.outliers > 0 || f.dense_channels > 0);
  at.numbers_at = room(makes_numbers(job) || scaled ? all_numbers * 4 : 0);
  at.rows_at = room(job.basis ? all_numbers * 4 : 0);
  at.keys_at = room(keeps ? numbers * 4 : 0);
  at.spreads_at = room(keeps ? f.groups * (f.scale_by_token ? f.tokens : f.width) * 8 : 0);
  at.moments_at = room(scaled || is_by_length(f) ? f.tokens * 8 : 0);
  at.ranges_at = room(keeps ? f.width * 4 : 0);
  at.outliers_at = room(keeps ? f.outliers * 4 : 0);
  at.largest_at = room(keeps ? largest_bytes(numbers) : 0);
  at.kept_at = room(keeps ? numbers : scaled ? f.tokens : 0);
  at.codes_at = room(f.kind == SideKind::kCentroids ? f.tokens * f.parts : is_by_length(f) ? numbers : 0);
  at.bytes = end;
  return at;
}

}  // namespace kva
