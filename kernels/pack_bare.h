// Coding of page sides on the device where they are codes with a scale for each packed row, and nothing else
// (is_bare()): the common ones, once through shared memory, with the bytes of kernels/pack_lanes.h.
//
// A Team is that of pack_lanes.h, with shared(): bare_shared(job).bytes bytes that its threads share.
#pragma once

#include <cmath>
#include <cstdint>

#include "kernels/host_device.h"
#include "kernels/pack_job.h"
#include "kernels/packed_math.h"
#include "kernels/scale_math.h"
#include "kernels/value_math.h"

namespace kva {

inline constexpr int kBareParts = 4;                   // of a row, whose ranges are found apart
inline constexpr int64_t kMostBareShared = 112 << 10;  // bytes: two blocks of a multiprocessor

// What lies where in shared memory, in bytes.
struct BareShared {
  int32_t codes_at = 0;  // behind the rows, as they came
  int32_t lows_at = 0;   // f32 [parts, packed rows]; then [0] is what is subtracted
  int32_t highs_at = 0;  // the same; then [0] is the scale, and [1] its inverse
  int64_t bytes = 0;
};
KVA_HOST_DEVICE constexpr int32_t bare_rows(const SideFormat& f) {
  return is_by_channel(f.kind) ? f.width : f.tokens;
}
KVA_HOST_DEVICE constexpr int32_t bare_length(const SideFormat& f) {
  return is_by_channel(f.kind) ? f.tokens : f.width;
}
KVA_HOST_DEVICE inline BareShared bare_shared(const PackJob& job) {
  const SideFormat& f = job.format;
  const int32_t rows = bare_rows(f);
  const auto whole = [](int32_t bytes) { return (bytes + 15) / 16 * 16; };
  BareShared at;
  at.codes_at = f.tokens * f.width * side_bits(job.source_kind) / 8;
  at.lows_at = at.codes_at + whole(rows * packed_bytes(side_bits(f.kind), bare_length(f)));
  at.highs_at = at.lows_at + whole(kBareParts * rows * 4);
  at.bytes = at.highs_at + whole(kBareParts * rows * 4);
  return at;
}

KVA_HOST_DEVICE inline bool packs_bare(const PackJob& job) {
  const SideFormat& f = job.format;
  const SideKind from = job.source_kind;
  return f.kind >= SideKind::kBits8 && f.kind <= SideKind::kBits2ByChannel && is_bare(f) &&
         f.width % 8 == 0 && job.front == 0 && !makes_numbers(job) &&
         (from == SideKind::kF16 || from == SideKind::kBF16 || from == SideKind::kF32) &&
         bare_shared(job).bytes <= kMostBareShared;
}

// i / n for 0 <= i < 2^18, given 1 / n: without the steps of a division of integers. i + 1/2 is at least half
// an n-th, and so 2^-19 of the quotient, away from where another one begins.
KVA_LANE_CODE inline int32_t small_quotient(int32_t i, float inverse) {
  return static_cast<int32_t>((static_cast<float>(i) + 0.5f) * inverse);
}

// As many bytes as one load takes.
struct alignas(16) FourWords {
  uint32_t words[4];
};

// Number `i` of the rows in shared memory.
template <SideKind source>
KVA_LANE_CODE float staged_number(const std::byte* rows, int32_t i) {
  if constexpr (source == SideKind::kF32) return reinterpret_cast<const float*>(rows)[i];
  const uint16_t code = reinterpret_cast<const uint16_t*>(rows)[i];
  return source == SideKind::kF16 ? f16_value(code) : bf16_value(code);
}

// A range of numbers, and whether codecs refuse one of them.
struct BareRange {
  float low = INFINITY;
  float high = -INFINITY;
  bool refused = false;
  KVA_LANE_CODE void take(float x) {
    low = fminf(low, x);
    high = fmaxf(high, x);
    refused |= !(fabsf(x) <= 65504.0f);
  }
};

// number_code() for a scale whose inverse is known.
struct BareScale {
  float zero;
  float scale;
  float inverse;

  // Into codes[i], of number(i). Divides only where a product with the inverse may lie on the other side of
  // half a step: it and a quotient of at most 256 are less than 2^-14 apart.
  template <class Number>
  KVA_LANE_CODE void code(const Number& number, int32_t offset, int32_t most,
                          uint32_t (&codes)[kUnit]) const {
    float farthest = 0.0f;  // from a whole number
    KVA_UNROLL
    for (int j = 0; j < kUnit; ++j) {
      const float steps = (number(j) - zero) * inverse;
      codes[j] = whole(steps, offset, most);
      farthest = fmaxf(farthest, fabsf(steps - ((steps + kWhole) - kWhole)));
    }
    if (farthest < 0.5f - 0x1p-13f) return;
    for (int j = 0; j < kUnit; ++j)
      codes[j] = whole(scale > 0.0f ? (number(j) - zero) / scale : 0.0f, offset, most);
  }

 private:
  static constexpr float kWhole = 0x1.8p23f;  // adding it leaves whole numbers, halves rounded to even
  KVA_LANE_CODE static uint32_t whole(float steps, int32_t offset, int32_t most) {
    const int32_t code =
        static_cast<int32_t>(bits_of(steps + kWhole)) - static_cast<int32_t>(bits_of(kWhole)) + offset;
    return static_cast<uint32_t>(code < 0 ? 0 : code > most ? most : code);
  }
};

// A unit's bytes from its eight codes (unit_code()).
template <int bits>
KVA_LANE_CODE UnitBits packed_codes(const uint32_t (&codes)[kUnit]) {
  UnitBits unit = {0, 0};
  KVA_UNROLL
  for (int j = 0; j < kUnit; ++j) {
    if constexpr (bits == 8)
      (j < 4 ? unit.low : unit.high) |= codes[j] << (8 * (j & 3));
    else if constexpr (bits == 4)
      unit.low |= codes[j] << (8 * (j & 3) + 4 * (j >> 2));
    else if constexpr (bits == 2)
      unit.low |= codes[j] << (8 * (j & 1) + 2 * (j >> 1));
    else
      unit.low |= codes[j] << (3 * j);
  }
  return unit;
}
template <int bits>
KVA_LANE_CODE void put_unit(const UnitBits& unit, int32_t plane, uint8_t* at) {
  if constexpr (bits == 3) {
    for (int n = 0; n < 3; ++n) at[int64_t{n} * plane] = static_cast<uint8_t>(unit.low >> (8 * n));
  } else if constexpr (bits == 2) {
    *reinterpret_cast<uint16_t*>(at) = static_cast<uint16_t>(unit.low);
  } else {
    reinterpret_cast<uint32_t*>(at)[0] = unit.low;
    if constexpr (bits == 8) reinterpret_cast<uint32_t*>(at)[1] = unit.high;
  }
}

template <SideKind kind, SideKind source, class Team>
class BarePacking {
 public:
  KVA_LANE_CODE BarePacking(Team& team, const PackJob& job, int32_t index)
      : team_(team),
        job_(job),
        f_(job.format),
        side_(job.sides[index]),
        rows_(bare_rows(job.format)),
        length_(bare_length(job.format)) {
    const BareShared at = bare_shared(job);
    staged_ = team.shared();
    codes_ = reinterpret_cast<uint8_t*>(staged_ + at.codes_at);
    lows_ = reinterpret_cast<float*>(staged_ + at.lows_at);
    highs_ = reinterpret_cast<float*>(staged_ + at.highs_at);
  }

  KVA_LANE_CODE void run() {
    stage();
    if constexpr (kByChannel)
      channel_ranges();
    else
      token_ranges();
    team_.each(rows_, [&](int32_t row) { put_scale(row); });
    code();
    const int32_t bytes = rows_ * packed_bytes(kBits, length_);
    auto* to = reinterpret_cast<uint8_t*>(side_.payload) + f_.codes_at;
    if (f_.codes_at % 4 == 0 && bytes % 4 == 0)
      team_.each(bytes / 4, [&](int32_t i) {
        reinterpret_cast<uint32_t*>(to)[i] = reinterpret_cast<const uint32_t*>(codes_)[i];
      });
    else
      team_.each(bytes, [&](int32_t i) { to[i] = codes_[i]; });
  }

 private:
  static constexpr bool kByChannel = is_by_channel(kind);
  static constexpr int kBits = side_bits(kind);
  static constexpr int kNumbers = 128 / side_bits(source);  // of FourWords

  KVA_LANE_CODE void stage() {
    const int32_t of_row = f_.width / kNumbers;
    auto* to = reinterpret_cast<FourWords*>(staged_);
    if (!side_.rows) {
      team_.each(f_.tokens * of_row,
                 [&](int32_t i) { to[i] = reinterpret_cast<const FourWords*>(side_.source)[i]; });
      return;
    }
    const float inverse = 1.0f / static_cast<float>(of_row);
    team_.each(f_.tokens * of_row, [&](int32_t i) {
      const int32_t token = small_quotient(i, inverse);
      to[i] = reinterpret_cast<const FourWords*>(side_.rows[token])[i - token * of_row];
    });
  }

  // Neighbouring threads take neighbouring words of a row of shared memory.
  KVA_LANE_CODE void token_ranges() {
    const int32_t of_row = f_.width / kNumbers;
    team_.each(rows_ * kBareParts, [&](int32_t i) {
      const int32_t row = i / kBareParts, part = i % kBareParts;
      BareRange range;
      for (int32_t word = part; word < of_row; word += kBareParts) {
        const FourWords four = reinterpret_cast<const FourWords*>(staged_)[row * of_row + word];
        KVA_UNROLL
        for (int n = 0; n < kNumbers; ++n) range.take(number_of(four, n));
      }
      put_range(part, row, range);
    });
  }
  KVA_LANE_CODE void channel_ranges() {
    const float inverse = 1.0f / static_cast<float>(rows_);
    team_.each(rows_ * kBareParts, [&](int32_t i) {
      const int32_t part = small_quotient(i, inverse), channel = i - part * rows_;
      BareRange range;
      for (int32_t token = part; token < f_.tokens; token += kBareParts)
        range.take(staged_number<source>(staged_, token * f_.width + channel));
      put_range(part, channel, range);
    });
  }

  KVA_LANE_CODE static float number_of(const FourWords& four, int n) {
    if constexpr (source == SideKind::kF32) return float_of(four.words[n]);
    const auto code = static_cast<uint16_t>(four.words[n / 2] >> (16 * (n % 2)));
    return source == SideKind::kF16 ? f16_value(code) : bf16_value(code);
  }
  KVA_LANE_CODE void put_range(int32_t part, int32_t row, const BareRange& range) {
    lows_[part * rows_ + row] = range.low;
    highs_[part * rows_ + row] = range.high;
    if (range.refused) *job_.refused = 1;
  }

  KVA_LANE_CODE void put_scale(int32_t row) {
    float low = lows_[row], high = highs_[row];
    for (int part = 1; part < kBareParts; ++part) {
      low = lows_[part * rows_ + row] < low ? lows_[part * rows_ + row] : low;
      high = highs_[part * rows_ + row] > high ? highs_[part * rows_ + row] : high;
    }
    if (low > high) low = high = 0.0f;
    const bool symmetric = f_.zeros_at < 0;
    const StoredScale stored = stored_scale(low, high, kBits, symmetric);
    reinterpret_cast<uint16_t*>(side_.payload + f_.scales_at)[row] = stored.scale;
    if (!symmetric) reinterpret_cast<uint16_t*>(side_.payload + f_.zeros_at)[row] = stored.zero;
    const float scale = f16_value(stored.scale);
    lows_[row] = symmetric ? 0.0f : f16_value(stored.zero);
    highs_[row] = scale;
    highs_[rows_ + row] = scale > 0.0f ? 1.0f / scale : 0.0f;
  }

  KVA_LANE_CODE void code() {
    const int32_t offset = f_.zeros_at < 0 ? 1 << (kBits - 1) : 0;
    const int32_t units = length_ / kUnit;
    const int32_t row_bytes = packed_bytes(kBits, length_);
    const float inverse = 1.0f / static_cast<float>(kByChannel ? rows_ : units);
    team_.each(rows_ * units, [&](int32_t i) {
      const int32_t quotient = small_quotient(i, inverse);
      const int32_t left = i - quotient * (kByChannel ? rows_ : units);
      const int32_t row = kByChannel ? left : quotient;
      int32_t at = 0, plane = 0;
      const UnitPlaces places = packed_unit<kBits>(length_, kByChannel ? quotient : left, &at, &plane);
      const BareScale scale = {lows_[row], highs_[row], highs_[rows_ + row]};
      uint32_t codes[kUnit];
      const auto number = [&](int j) {
        const int32_t place = places.place(j);
        return staged_number<source>(staged_, kByChannel ? place * f_.width + row : row * f_.width + place);
      };
      scale.code(number, offset, (1 << kBits) - 1, codes);
      put_unit<kBits>(packed_codes<kBits>(codes), plane, codes_ + int64_t{row} * row_bytes + at);
    });
  }

  Team& team_;
  const PackJob& job_;
  const SideFormat& f_;
  const PackSide& side_;
  int32_t rows_;    // packed
  int32_t length_;  // numbers of one
  std::byte* staged_;
  uint8_t* codes_;
  float* lows_;
  float* highs_;
};

// Calls body.run_bare<kind, source kind>() of a job that packs_bare().
template <SideKind kind, class Body>
void with_bare_source(const PackJob& job, const Body& body) {
  switch (job.source_kind) {
    case SideKind::kF16: return body.template run_bare<kind, SideKind::kF16>();
    case SideKind::kBF16: return body.template run_bare<kind, SideKind::kBF16>();
    default: return body.template run_bare<kind, SideKind::kF32>();
  }
}
template <class Body>
void with_bare_kinds(const PackJob& job, const Body& body) {
  switch (job.format.kind) {
    case SideKind::kBits8: return with_bare_source<SideKind::kBits8>(job, body);
    case SideKind::kBits4: return with_bare_source<SideKind::kBits4>(job, body);
    case SideKind::kBits3: return with_bare_source<SideKind::kBits3>(job, body);
    case SideKind::kBits2: return with_bare_source<SideKind::kBits2>(job, body);
    case SideKind::kBits8ByChannel: return with_bare_source<SideKind::kBits8ByChannel>(job, body);
    case SideKind::kBits4ByChannel: return with_bare_source<SideKind::kBits4ByChannel>(job, body);
    case SideKind::kBits3ByChannel: return with_bare_source<SideKind::kBits3ByChannel>(job, body);
    case SideKind::kBits2ByChannel: return with_bare_source<SideKind::kBits2ByChannel>(job, body);
    default: break;
  }
}

}  // namespace kva
