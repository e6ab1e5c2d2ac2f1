// Which page sides are coded through shared memory (kernels/pack_bare.h), and what lies where in it.
#pragma once

#include <cstddef>
#include <cstdint>

#include "kernels/largest_lanes.h"
#include "kernels/pack_job.h"
#include "kernels/packed_math.h"

namespace kva {

inline constexpr int kBareParts = 4;                   // of a group, whose ranges are found apart
inline constexpr int64_t kMostBareShared = 112 << 10;  // bytes: two blocks of a multiprocessor

KVA_HOST_DEVICE constexpr int32_t bare_rows(const SideFormat& f) {
  return is_by_channel(f.kind) ? f.width : f.tokens;
}
KVA_HOST_DEVICE constexpr int32_t bare_length(const SideFormat& f) {
  return is_by_channel(f.kind) ? f.tokens : f.width;
}
// What shares a scale: tokens, or channels.
KVA_HOST_DEVICE constexpr int32_t bare_groups(const SideFormat& f) {
  return f.scale_by_token ? f.tokens : f.width;
}
KVA_HOST_DEVICE constexpr int32_t bare_group_length(const SideFormat& f) {
  return f.scale_by_token ? f.width : f.tokens;
}
// How many numbers that may be outliers are ordered apart from the others.
KVA_HOST_DEVICE constexpr int32_t bare_candidates(const SideFormat& f) { return f.tokens * f.width / 16; }

// What lies where in shared memory, in bytes.
struct BareShared {
  // Behind the rows, as they came. Codes; and, before they are there, what finds outliers. A run is 8 numbers
  // of a group:
  int32_t codes_at = 0;
  int32_t run_lows_at = 0;   // f32 [runs]
  int32_t run_highs_at = 0;  // f32 [runs]
  int32_t counts_at = 0;     // u32 [2]: how many runs are listed, and candidates
  int32_t sums_at = 0;       // f32 [2, parts, groups]: sums and squares; then what follows, up to lows_at
  int32_t keys_at = 0;       // u32 [runs]: each run's largest; then of candidates
  int32_t runs_at = 0;       // u16 [candidates]: runs that have some
  int32_t places_at = 0;     // u16 [candidates]
  int32_t largest_at = 0;    // largest_bytes()
  int32_t outliers_at = 0;   // u16 [outliers]: their places
  // Behind all of that, with outliers of one part, and first for means and 1 / sqrt(std):
  int32_t lows_at = 0;   // f32 [parts, groups]; then [0] is what is subtracted
  int32_t highs_at = 0;  // the same; then [0] is the scale, and [1] its inverse
  int64_t bytes = 0;
};
KVA_HOST_DEVICE inline BareShared bare_shared(const PackJob& job) {
  const SideFormat& f = job.format;
  const int32_t groups = bare_groups(f);
  int32_t end = f.tokens * f.width * side_bits(job.source_kind) / 8;
  const auto room = [&end](int32_t bytes) {
    const int32_t first = end;
    end += (bytes + 15) / 16 * 16;
    return first;
  };
  BareShared at;
  at.codes_at = room(bare_rows(f) * packed_bytes(side_bits(f.kind), bare_length(f)));
  const int32_t codes_end = end;
  if (f.outliers > 0) {
    const int32_t numbers = f.tokens * f.width;
    end = at.codes_at;
    at.run_lows_at = room(numbers / 8 * 4);
    at.run_highs_at = room(numbers / 8 * 4);
    at.counts_at = room(8);
    at.sums_at = at.keys_at = end;
    const int32_t sums_end = end + 2 * kBareParts * groups * 4;
    room(numbers / 8 * 4);
    at.runs_at = room(bare_candidates(f) * 2);
    at.places_at = room(bare_candidates(f) * 2);
    at.largest_at = room(largest_bytes(numbers));
    at.outliers_at = room(f.outliers * 2);
    end = end < sums_end ? sums_end : end;
    end = end < codes_end ? codes_end : end;
  }
  const int32_t parts = f.outliers > 0 ? 1 : kBareParts;
  at.lows_at = room(parts * groups * 4);
  at.highs_at = room((parts + 1) * groups * 4);
  at.bytes = end;
  return at;
}

// Sides with a scale for each token, or for each channel where packed rows are channels, and nothing beside
// the codes but outliers, from rows of numbers as they are.
KVA_HOST_DEVICE inline bool packs_bare(const PackJob& job) {
  SideFormat beside = job.format;
  beside.outliers = 0;
  beside.codes_at = 0;  // wherever they are
  const SideKind from = job.source_kind;
  return beside.kind >= SideKind::kBits8 && beside.kind <= SideKind::kBits2ByChannel &&
         has_plain_units(beside) && !keeps_numbers(beside) && beside.width % 8 == 0 && job.front == 0 &&
         !makes_numbers(job) &&
         (from == SideKind::kF16 || from == SideKind::kBF16 || from == SideKind::kF32) &&
         bare_shared(job).bytes <= kMostBareShared;
}

// What is behind packed rows of so many bytes begins at an even one.
KVA_HOST_DEVICE inline void pad_codes(const SideFormat& f, std::byte* payload, int32_t code_bytes) {
  const int32_t end = f.codes_at + code_bytes;
  if (end % 2 != 0 && end < f.bytes) payload[end] = std::byte{0};
}

// What coding a side of the job takes in PackJob::scratch.
KVA_HOST_DEVICE inline int64_t pack_scratch_bytes(const PackJob& job) {
  return packs_bare(job) ? 0 : pack_scratch(job).bytes;
}

}  // namespace kva
