// Coding of page sides on the device where they are codes with a scale for each token or channel, and nothing
// else but outliers (packs_bare()): the common ones, once through shared memory, with the bytes of
// kernels/pack_lanes.h.
//
// A Team is that of pack_lanes.h, with shared(): bare_shared(job).bytes bytes that its threads share.
#pragma once

#include <cmath>
#include <cstdint>

#include "kernels/host_device.h"
#include "kernels/pack_bare_job.h"
#include "kernels/pack_bare_outliers.h"
#include "kernels/packed_math.h"
#include "kernels/scale_math.h"
#include "kernels/staged_numbers.h"
#include "kernels/value_math.h"

namespace kva {

// number_code() for a scale whose inverse is known.
struct BareScale {
  float zero;
  float scale;
  float inverse;

  // Into codes[i], of number(i), whose scale is scale_of(i). Divides only where a product with the inverse
  // may lie on the other side of half a step: it and a quotient of at most 256 are less than 2^-14 apart.
  template <class Number, class ScaleOf>
  KVA_LANE_CODE static void code(const Number& number, const ScaleOf& scale_of, int32_t offset, int32_t most,
                                 uint32_t (&codes)[kUnit]) {
    float farthest = 0.0f;  // from a whole number
    KVA_UNROLL
    for (int j = 0; j < kUnit; ++j) {
      const BareScale of = scale_of(j);
      const float steps = (number(j) - of.zero) * of.inverse;
      codes[j] = whole(steps, offset, most);
      farthest = fmaxf(farthest, fabsf(steps - ((steps + kWhole) - kWhole)));
    }
    if (farthest < 0.5f - 0x1p-13f) return;
    for (int j = 0; j < kUnit; ++j) {
      const BareScale of = scale_of(j);
      codes[j] = whole(of.scale > 0.0f ? (number(j) - of.zero) / of.scale : 0.0f, offset, most);
    }
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

// of_tokens: whether scales are of tokens, else of channels, which are packed rows then.
template <SideKind kind, SideKind source, bool has_outliers, bool of_tokens, class Team>
class BarePacking {
 public:
  KVA_LANE_CODE BarePacking(Team& team, const PackJob& job, int32_t index)
      : team_(team),
        job_(job),
        f_(job.format),
        side_(job.sides[index]),
        groups_(bare_groups(job.format)),
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
    if constexpr (has_outliers) {
      BareOutliers<!of_tokens, source, Team> outliers(team_, job_, side_, lows_, highs_);
      outliers.take_out();
      team_.each(groups_, [&](int32_t group) { put_scale(group, outliers.range(group)); });
      outliers.put_zeros(lows_);
    } else {
      if constexpr (of_tokens)
        token_ranges();
      else
        channel_ranges();
      team_.each(groups_, [&](int32_t group) { put_scale(group, range(group)); });
    }
    code();
    put_codes();
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
    team_.each(groups_ * kBareParts, [&](int32_t i) {
      const int32_t group = i / kBareParts, part = i % kBareParts;
      BareRange range;
      bool refused = false;
      for (int32_t word = part; word < of_row; word += kBareParts) {
        float numbers[kNumbers];
        staged_numbers<source>(staged_, (group * of_row + word) * kNumbers, numbers);
        KVA_UNROLL
        for (const float x : numbers) {
          range.take(x);
          refused |= is_beyond_f16(x);
        }
      }
      put_range(part, group, range, refused);
    });
  }
  KVA_LANE_CODE void channel_ranges() {
    const float inverse = 1.0f / static_cast<float>(groups_);
    team_.each(groups_ * kBareParts, [&](int32_t i) {
      const int32_t part = small_quotient(i, inverse), channel = i - part * groups_;
      BareRange range;
      bool refused = false;
      for (int32_t token = part; token < f_.tokens; token += kBareParts) {
        const float x = staged_number<source>(staged_, token * f_.width + channel);
        range.take(x);
        refused |= is_beyond_f16(x);
      }
      put_range(part, channel, range, refused);
    });
  }

  KVA_LANE_CODE void put_range(int32_t part, int32_t group, const BareRange& range, bool refused) {
    lows_[part * groups_ + group] = range.low;
    highs_[part * groups_ + group] = range.high;
    if (refused) *job_.refused = 1;
  }

  KVA_LANE_CODE BareRange range(int32_t group) const {
    BareRange range;
    for (int part = 0; part < kBareParts; ++part) {
      range.low = fminf(range.low, lows_[part * groups_ + group]);
      range.high = fmaxf(range.high, highs_[part * groups_ + group]);
    }
    return range;
  }

  KVA_LANE_CODE void put_scale(int32_t group, const BareRange& range) {
    float low = range.low, high = range.high;
    if (low > high) low = high = 0.0f;
    const bool symmetric = f_.zeros_at < 0;
    const StoredScale stored = stored_scale(low, high, kBits, symmetric);
    reinterpret_cast<uint16_t*>(side_.payload + f_.scales_at)[group] = stored.scale;
    if (!symmetric) reinterpret_cast<uint16_t*>(side_.payload + f_.zeros_at)[group] = stored.zero;
    const float scale = f16_value(stored.scale);
    lows_[group] = symmetric ? 0.0f : f16_value(stored.zero);
    highs_[group] = scale;
    highs_[groups_ + group] = scale > 0.0f ? 1.0f / scale : 0.0f;
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
      const auto scale_at = [&](int32_t group) {
        return BareScale{lows_[group], highs_[group], highs_[groups_ + group]};
      };
      uint32_t codes[kUnit];
      const auto number = [&](int j) {
        const int32_t place = places.place(j);
        return staged_number<source>(staged_, kByChannel ? place * f_.width + row : row * f_.width + place);
      };
      if constexpr (kByChannel && of_tokens) {
        BareScale::code(
            number, [&](int j) { return scale_at(places.place(j)); }, offset, (1 << kBits) - 1, codes);
      } else {
        const BareScale of_row = scale_at(row);
        BareScale::code(
            number, [&](int) { return of_row; }, offset, (1 << kBits) - 1, codes);
      }
      put_unit<kBits>(packed_codes<kBits>(codes), plane, codes_ + int64_t{row} * row_bytes + at);
    });
  }

  KVA_LANE_CODE void put_codes() const {
    const int32_t bytes = rows_ * packed_bytes(kBits, length_);
    auto* to = reinterpret_cast<uint8_t*>(side_.payload) + f_.codes_at;
    if (f_.codes_at % 4 == 0 && bytes % 4 == 0)
      put_all<uint32_t>(bytes, to);
    else if (bytes % 2 == 0)
      put_all<uint16_t>(bytes, to);
    else
      put_all<uint8_t>(bytes, to);
    team_.each(1, [&](int32_t) { pad_codes(f_, side_.payload, bytes); });
  }
  template <class Word>
  KVA_LANE_CODE void put_all(int32_t bytes, uint8_t* to) const {
    team_.each(bytes / static_cast<int32_t>(sizeof(Word)),
               [&](int32_t i) { reinterpret_cast<Word*>(to)[i] = reinterpret_cast<const Word*>(codes_)[i]; });
  }

  Team& team_;
  const PackJob& job_;
  const SideFormat& f_;
  const PackSide& side_;
  int32_t groups_;  // what shares a scale
  int32_t rows_;    // packed
  int32_t length_;  // numbers of one
  std::byte* staged_;
  uint8_t* codes_;
  float* lows_;
  float* highs_;
};

// Calls body.run_bare<kind, source kind, whether there are outliers, whether scales are of tokens>() of a job
// that packs_bare().
template <SideKind kind, SideKind source, bool has_outliers, class Body>
void with_bare_scales(const PackJob& job, const Body& body) {
  if constexpr (is_by_channel(kind))
    if (!job.format.scale_by_token) return body.template run_bare<kind, source, has_outliers, false>();
  return body.template run_bare<kind, source, has_outliers, true>();
}
template <SideKind kind, SideKind source, class Body>
void with_bare_outliers(const PackJob& job, const Body& body) {
  if (job.format.outliers > 0) return with_bare_scales<kind, source, true>(job, body);
  return with_bare_scales<kind, source, false>(job, body);
}
template <SideKind kind, class Body>
void with_bare_source(const PackJob& job, const Body& body) {
  switch (job.source_kind) {
    case SideKind::kF16: return with_bare_outliers<kind, SideKind::kF16>(job, body);
    case SideKind::kBF16: return with_bare_outliers<kind, SideKind::kBF16>(job, body);
    default: return with_bare_outliers<kind, SideKind::kF32>(job, body);
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
