// A page side on its way to its codes on the device: where its rows are, and the numbers that are coded. A
// Team is that of kernels/pack_lanes.h.
#pragma once

#include <cmath>
#include <cstdint>

#include "kernels/codebook_lanes.h"
#include "kernels/direction_math.h"
#include "kernels/host_device.h"
#include "kernels/outlier_math.h"
#include "kernels/pack_job.h"
#include "kernels/unpack_lanes.h"

namespace kva {

// One side on its way. Tokens are counted behind the front.
struct Packing {
  KVA_LANE_CODE Packing(const PackJob& job_, int32_t index)
      : job(job_),
        format(job_.format),
        side(job_.sides[index]),
        at(pack_scratch(job_)),
        scratch(job_.scratch + at.bytes * index),
        keeps(job_.format.outliers > 0 || job_.format.dense_channels > 0),
        made(makes_numbers(job_)) {}

  KVA_LANE_CODE const std::byte* row(int32_t token) const {
    return row_of(side.source, side.rows, token + job.front);
  }
  KVA_LANE_CODE float source_number(int32_t token, int32_t channel) const {
    return dense_number(job.source_kind, row(token), channel);
  }
  KVA_LANE_CODE float other_number(int32_t token, int32_t channel) const {
    return dense_number(job.source_kind, row_of(side.other_source, side.other_rows, token + job.front),
                        channel);
  }
  // What is coded.
  KVA_LANE_CODE float number(int32_t token, int32_t channel) const {
    return made ? numbers()[(token + job.front) * format.width + channel] : source_number(token, channel);
  }
  KVA_LANE_CODE bool is_kept(int32_t token, int32_t channel) const {
    return keeps && kept()[token * format.width + channel] != 0;
  }
  KVA_LANE_CODE uint8_t* payload() const { return reinterpret_cast<uint8_t*>(side.payload); }
  KVA_LANE_CODE uint16_t* halves(int32_t offset) const {
    return reinterpret_cast<uint16_t*>(side.payload + offset);
  }
  KVA_LANE_CODE float* numbers() const { return reinterpret_cast<float*>(scratch + at.numbers_at); }
  KVA_LANE_CODE float* rows() const { return reinterpret_cast<float*>(scratch + at.rows_at); }
  KVA_LANE_CODE uint32_t* keys() const { return reinterpret_cast<uint32_t*>(scratch + at.keys_at); }
  KVA_LANE_CODE Spread* spreads() const { return reinterpret_cast<Spread*>(scratch + at.spreads_at); }
  KVA_LANE_CODE double* moments() const { return reinterpret_cast<double*>(scratch + at.moments_at); }
  KVA_LANE_CODE float* ranges() const { return reinterpret_cast<float*>(scratch + at.ranges_at); }
  KVA_LANE_CODE int32_t* outliers() const { return reinterpret_cast<int32_t*>(scratch + at.outliers_at); }
  KVA_LANE_CODE std::byte* largest() const { return scratch + at.largest_at; }
  KVA_LANE_CODE uint8_t* kept() const { return reinterpret_cast<uint8_t*>(scratch + at.kept_at); }
  KVA_LANE_CODE uint8_t* codes() const { return reinterpret_cast<uint8_t*>(scratch + at.codes_at); }

  const PackJob& job;
  const SideFormat& format;
  const PackSide& side;
  PackScratch at;
  std::byte* scratch;
  bool keeps;
  bool made;  // numbers are

 private:
  KVA_LANE_CODE const std::byte* row_of(const std::byte* first, const std::byte* const* each,
                                        int32_t token) const {
    const int32_t row_bytes = format.width * side_bits(job.source_kind) / 8;
    return each ? each[token] : first + int64_t{token} * row_bytes;
  }
};

// What is coded, of all tokens with the front: rows, or directions between them, times H / sqrt(width) as
// kernels/hadamard.h, or on the basis.
template <class Team>
KVA_LANE_CODE void make_numbers(Team& team, const Packing& p) {
  const int32_t width = p.format.width;
  const int32_t tokens = all_tokens(p.job);
  float* numbers = p.job.basis ? p.rows() : p.numbers();
  if (p.job.blends)
    team.each(tokens, [&](int32_t i) {
      const int32_t token = i - p.job.front;
      direction_between([&](int32_t c) { return p.source_number(token, c); },
                        [&](int32_t c) { return p.other_number(token, c); }, width, p.job.share,
                        [&](int32_t c, float x) { numbers[int64_t{i} * width + c] = x; });
    });
  else
    team.each(tokens * width,
              [&](int32_t i) { numbers[i] = p.source_number(i / width - p.job.front, i % width); });
  if (p.job.basis) {
    project_rows(team, numbers, static_cast<const uint16_t*>(p.job.basis), tokens, width, p.numbers());
    numbers = p.numbers();
  }
  if (!p.format.hadamard) return;
  for (int32_t half = 1; half < width; half *= 2)
    team.each(tokens * (width / 2), [&](int32_t i) {
      const int32_t pair = i % (width / 2);
      float* first =
          numbers + (int64_t{i / (width / 2)} * width + int64_t{pair / half} * 2 * half + pair % half);
      const float a = first[0];
      const float b = first[half];
      first[0] = a + b;
      first[half] = a - b;
    });
  const float scale = 1.0f / sqrtf(static_cast<float>(width));
  team.each(tokens * width, [&](int32_t i) { numbers[i] *= scale; });
}

}  // namespace kva
