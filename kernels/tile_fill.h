// Fills a tile with one side of the tokens of its slots: rows of 16-bit numbers in shared memory, by the
// threads of a block (the Team is that of kernels/tile_pages.h; copy_async(to, from, present) also copies 16
// bytes, or zeros, that are there behind await_copies() and a sync()). Slots without a token become zeros.
#pragma once

#include <cstdint>

#include "kernels/attention_turned_keys.h"
#include "kernels/attention_units.h"
#include "kernels/side_kinds.h"
#include "kernels/tile_numbers.h"
#include "kernels/tile_pages.h"

namespace kva {

// Of loops whose body is long: as many copies of it would take too long to compile.
#if defined(__CUDACC__)
#define KVA_ROLLED _Pragma("unroll 1")
#else
#define KVA_ROLLED
#endif

// A row of a tile has 16 bytes more than it needs, so that 8 neighbouring rows begin in different banks.
KVA_HOST_DEVICE constexpr int tile_stride(int width) { return width + 8; }

// One side of a tile's tokens.
template <int kKeys>
struct TileSide {
  const TilePage* window;
  const TileSlots<kKeys>& slots;
  bool values;
  uint16_t* tile;  // [kKeys, tile_stride(width)]

  KVA_LANE_CODE const uint8_t* payload(const TilePage& page) const {
    return values ? page.values : page.keys;
  }
  KVA_LANE_CODE SidePage side(const TilePage& page) const {
    return {values ? page.value_format : page.key_format, payload(page), page.tokens};
  }
  KVA_LANE_CODE bool kept(const TilePage& page) const { return values ? page.values_kept : page.keys_kept; }
  KVA_LANE_CODE UnitWay way(const TilePage& page) const { return values ? page.value_way : page.key_way; }
  // The page of a slot's token where it is read so; else null.
  KVA_LANE_CODE const TilePage* page_read(UnitWay wanted, int32_t slot) const {
    const int32_t where = slot < kKeys ? slots.where[slot] : -1;
    if (where < 0 || way(window[where / 256]) != wanted) return nullptr;
    return window + where / 256;
  }
};

// How the threads share a tile: each takes 8 columns of every kRows-th slot.
template <int kWidth>
struct TileShare {
  static constexpr int kUnits = kWidth / kUnit;
  static constexpr int kRows = kTileThreads / kUnits;
  int32_t unit;
  int32_t row;  // kRows: the thread has no part
  KVA_LANE_CODE explicit TileShare(int32_t thread) : unit(thread % kUnits), row(thread / kUnits) {}
};

// Rows of 16-bit numbers as they are.
template <int kWidth, int kKeys, class Team>
KVA_LANE_CODE void copy_rows(Team& team, const TileSide<kKeys>& side) {
  using Share = TileShare<kWidth>;
  const Share share(team.thread());
  if (share.row >= Share::kRows) return;
  KVA_UNROLL
  for (int32_t pass = 0; pass < (kKeys + Share::kRows - 1) / Share::kRows; ++pass) {
    const int32_t slot = pass * Share::kRows + share.row;
    if (slot >= kKeys) break;
    const int32_t where = side.slots.where[slot];
    const TilePage& page = side.window[where < 0 ? 0 : where / 256];
    const int32_t token = where < 0 ? 0 : where % 256;
    team.copy_async(side.tile + slot * tile_stride(kWidth) + share.unit * kUnit,
                    side.payload(page) + (token * kWidth + share.unit * kUnit) * 2, where >= 0);
  }
}

// Where the scales of a packed row's numbers are: number p's is first + (p >> shift) * step.
struct ScaleLine {
  int32_t first = 0;
  int32_t step = 0;
  int32_t shift = 0;
};

// Of row `row`, a token or a channel. Groups of several that divide a row are of a power of two.
template <SideKind kind>
KVA_LANE_CODE ScaleLine scale_line(const SideFormat& format, int32_t row) {
  const bool one = format.groups == 1;
  if (format.scale_by_token == is_by_channel(kind)) {
    // Each number of the row is of another token or channel than its neighbour.
    const int32_t group = one ? 0 : row / format.group;
    if (format.scale_by_token) return {group, format.groups, 0};
    return {group * format.width, 1, 0};
  }
  if (one) return {row, 0, 0};
  const int32_t shift = 31 - leading_zeros(static_cast<uint32_t>(format.group));
  if (format.scale_by_token) return {row * format.groups, 1, shift};
  return {row, format.width, shift};
}

// A unit as it is stored, with what its numbers share.
struct CodedUnit {
  RawUnit raw;
  CodeScale scale;
  float factor;
};

template <SideKind kind, UnitWay way>
KVA_LANE_CODE CodedUnit load_coded(const SidePage& page, const UnitAddress& address, int32_t row_bytes,
                                   int32_t row) {
  const SideFormat& format = *page.format;
  const uint8_t* at = page.payload + (is_packed(kind) ? format.codes_at : 0) + row * row_bytes + address.at;
  CodedUnit unit{load_raw<kind>(at, address.plane, reinterpret_cast<uintptr_t>(at) % side_bits(kind) == 0),
                 {1.0f, 0.0f},
                 1.0f};
  if constexpr (is_packed(kind)) {
    if constexpr (way == UnitWay::kShared)
      unit.scale =
          shared_scale<kind>(page, is_by_channel(kind) ? scale_index(format, address.places.first, row)
                                                       : scale_index(format, row, address.places.first));
    // Of rows of channels every number has its token's own.
    if (!is_by_channel(kind) && format.factors_at >= 0)
      unit.factor = f16_at(page.payload, format.factors_at, row);
  }
  return unit;
}

// What it stands for.
template <SideKind kind, UnitWay way>
KVA_LANE_CODE void decode_unit(const SidePage& page, const CodedUnit& unit, const UnitPlaces& places,
                               int32_t row, float (&numbers)[kUnit]) {
  ScaleLine line;
  if constexpr (way == UnitWay::kOwn) line = scale_line<kind>(*page.format, row);
  KVA_UNROLL
  for (int j = 0; j < kUnit; ++j) {
    if constexpr (is_packed(kind)) {
      const auto code =
          static_cast<float>(unit_code<side_bits(kind)>({unit.raw.words[0], unit.raw.words[1]}, j));
      CodeScale of = unit.scale;
      if constexpr (way == UnitWay::kOwn)
        of = shared_scale<kind>(page, line.first + (places.place(j) >> line.shift) * line.step);
      numbers[j] = fmaf(code, of.scale, of.zero) * unit.factor;
    } else {
      numbers[j] = unit_number<kind>(unit.raw, j);
    }
  }
}

// Words that begin at a multiple of their size.
template <int kWords>
KVA_LANE_CODE void store_words(const uint32_t* words, uint16_t* to) {
#if defined(__CUDA_ARCH__)
  if constexpr (kWords == 4)
    *reinterpret_cast<uint4*>(to) = make_uint4(words[0], words[1], words[2], words[3]);
  else if constexpr (kWords == 2)
    *reinterpret_cast<uint2*>(to) = make_uint2(words[0], words[1]);
  else
    *reinterpret_cast<uint32_t*>(to) = words[0];
#else
  for (int i = 0; i < kWords; ++i) reinterpret_cast<uint32_t*>(to)[i] = words[i];
#endif
}

// Writes a unit's numbers where they belong in a row. Runs of neighbours begin at multiples of their length.
template <SideKind kind>
KVA_LANE_CODE void write_unit(const UnitPlaces& places, const uint32_t (&words)[kUnit / 2], uint16_t* row) {
  constexpr int kBits = is_packed(kind) ? side_bits(kind) : 8;
  if constexpr (kBits == 3) {
    KVA_UNROLL
    for (int j = 0; j < kUnit; ++j)
      row[places.place(j)] = static_cast<uint16_t>(words[j / 2] >> (16 * (j % 2)));
  } else {
    constexpr int kWords = kBits / 2;
    KVA_UNROLL
    for (int i = 0; i < kUnit / 2; i += kWords) store_words<kWords>(words + i, row + places.place(2 * i));
  }
}

// How many units a thread asks for before it looks at the first.
template <UnitWay way>
inline constexpr int kTileAhead = way == UnitWay::kShared ? 4 : 1;

// Rows of tokens of other kinds: those that are read so.
template <SideKind kind, UnitWay way, int kWidth, int kKeys, class Team>
KVA_LANE_CODE void decode_tokens(Team& team, const TileSide<kKeys>& side) {
  using Share = TileShare<kWidth>;
  const Share share(team.thread());
  if (share.row >= Share::kRows) return;
  constexpr int32_t kRowBytes = kWidth * side_bits(kind) / 8;
  const UnitAddress address = unit_address<kind>(kWidth, share.unit);
  constexpr int kAhead = kTileAhead<way>;
  KVA_ROLLED
  for (int32_t first = share.row; first < kKeys; first += kAhead * Share::kRows) {
    CodedUnit units[kAhead];
    KVA_UNROLL
    for (int i = 0; i < kAhead; ++i) {
      units[i] = {};
      const int32_t slot = first + i * Share::kRows;
      if (const TilePage* of = side.page_read(way, slot))
        units[i] = load_coded<kind, way>(side.side(*of), address, kRowBytes, side.slots.where[slot] % 256);
    }
    KVA_UNROLL
    for (int i = 0; i < kAhead; ++i) {
      const int32_t slot = first + i * Share::kRows;
      const TilePage* of = side.page_read(way, slot);
      if (!of) continue;
      float numbers[kUnit];
      decode_unit<kind, way>(side.side(*of), units[i], address.places, side.slots.where[slot] % 256, numbers);
      uint32_t words[kUnit / 2];
      KVA_UNROLL
      for (int j = 0; j < kUnit; j += 2) words[j / 2] = F16Numbers::pack_clamped(numbers[j], numbers[j + 1]);
      write_unit<kind>(address.places, words, side.tile + slot * tile_stride(kWidth));
    }
  }
}

// A number by itself.
KVA_LANE_CODE inline uint16_t f16_clamped(float number) {
  return static_cast<uint16_t>(F16Numbers::pack_clamped(number, 0.0f) & 0xffffu);
}

// Calls body(page, first slot, first token, the token behind the last one) for the pages of a tile.
template <int kKeys, class Body>
KVA_LANE_CODE void for_tile_pages(const TileSide<kKeys>& side, const Body& body) {
  for (int32_t slot = 0; slot < kKeys && side.slots.where[slot] >= 0;) {
    const int32_t where = side.slots.where[slot];
    const TilePage& page = side.window[where / 256];
    const int32_t token = where % 256;
    const int32_t end = page.tokens - token < kKeys - slot ? page.tokens : token + kKeys - slot;
    body(page, slot, token, end);
    slot += end - token;
  }
}

// Rows of channels, of one page's tokens [from, to), which begin at slot `slot`: a thread takes 8 tokens of a
// channel at once.
template <SideKind kind, UnitWay way, int kWidth, int kKeys, class Team>
KVA_LANE_CODE void decode_channels(Team& team, const TileSide<kKeys>& side, const SidePage& page,
                                   int32_t slot, int32_t from, int32_t to) {
  const SideFormat& format = *page.format;
  const int32_t row_bytes = packed_bytes(side_bits(kind), page.tokens);
  const int32_t count = page.tokens / kUnit * kWidth;
  constexpr int kAhead = kTileAhead<way>;
  KVA_ROLLED
  for (int32_t first = team.thread(); first < count; first += kAhead * kTileThreads) {
    CodedUnit units[kAhead];
    KVA_UNROLL
    for (int k = 0; k < kAhead; ++k) {
      units[k] = {};
      const int32_t i = first + k * kTileThreads;
      if (i >= count) continue;
      const UnitAddress address = unit_address<kind>(page.tokens, i / kWidth);
      if (address.places.place(kUnit - 1) < from || address.places.first >= to) continue;
      units[k] = load_coded<kind, way>(page, address, row_bytes, i % kWidth);
    }
    KVA_UNROLL
    for (int k = 0; k < kAhead; ++k) {
      const int32_t i = first + k * kTileThreads;
      if (i >= count) break;
      const UnitPlaces places = unit_address<kind>(page.tokens, i / kWidth).places;
      float numbers[kUnit];
      decode_unit<kind, way>(page, units[k], places, i % kWidth, numbers);
      KVA_UNROLL
      for (int j = 0; j < kUnit; ++j) {
        const int32_t token = places.place(j);
        if (token < from || token >= to) continue;
        if (format.factors_at >= 0) numbers[j] *= f16_at(page.payload, format.factors_at, token);
        side.tile[(slot + token - from) * tile_stride(kWidth) + i % kWidth] = f16_clamped(numbers[j]);
      }
    }
  }
}

// Pages that have no such units: number by number.
template <int kWidth, int kKeys, class Team>
KVA_LANE_CODE void decode_odd(Team& team, const TileSide<kKeys>& side) {
  for_tile_pages(side, [&](const TilePage& of, int32_t slot, int32_t from, int32_t to) {
    if (side.way(of) != UnitWay::kOdd) return;
    const SidePage page = side.side(of);
    KVA_ROLLED
    for (int32_t i = team.thread(); i < (to - from) * kWidth; i += kTileThreads) {
      const int32_t token = from + i / kWidth;
      float number = any_number(page, token, i % kWidth);
      if (page.format->factors_at >= 0) number *= f16_at(page.payload, page.format->factors_at, token);
      side.tile[(slot + i / kWidth) * tile_stride(kWidth) + i % kWidth] = f16_clamped(number);
    }
  });
}

// Numbers kept beside the codes, over what the codes gave.
template <int kWidth, int kKeys, class Team>
KVA_LANE_CODE void put_kept(Team& team, const TileSide<kKeys>& side) {
  for_tile_pages(side, [&](const TilePage& of, int32_t slot, int32_t from, int32_t to) {
    if (!side.kept(of)) return;
    const SidePage page = side.side(of);
    const SideFormat& format = *page.format;
    const auto put = [&](int32_t token, int32_t channel, float number) {
      if (format.factors_at >= 0) number *= f16_at(page.payload, format.factors_at, token);
      side.tile[(slot + token - from) * tile_stride(kWidth) + channel] = f16_clamped(number);
    };
    const auto first_of = [&](int32_t token) {
      return format.outliers == 0
                 ? 0
                 : first_outlier(format, page.payload, static_cast<uint32_t>(token) * kWidth);
    };
    const int32_t end = first_of(to);
    for (int32_t i = first_of(from) + team.thread(); i < end; i += kTileThreads) {
      const auto place =
          static_cast<int32_t>(listed_place(page.payload + format.places_at, format.place_bits, i));
      put(place / kWidth, place % kWidth, f16_at(page.payload, format.outlier_values_at, i));
    }
    const auto* channels = reinterpret_cast<const uint16_t*>(page.payload + format.channels_at);
    for (int32_t i = team.thread(); i < format.dense_channels * (to - from); i += kTileThreads) {
      const int32_t dense = i / (to - from);
      const int32_t token = from + i % (to - from);
      put(token, channels[dense],
          f16_at(page.payload, format.channel_values_at, dense * page.tokens + token));
    }
  });
}

// Zeros for slots without a token.
template <int kWidth, int kKeys, class Team>
KVA_LANE_CODE void clear_empty(Team& team, const TileSide<kKeys>& side) {
  KVA_ROLLED
  for (int32_t i = team.thread(); i < kKeys * kWidth; i += kTileThreads)
    if (side.slots.where[i / kWidth] < 0) side.tile[i / kWidth * tile_stride(kWidth) + i % kWidth] = 0;
}

// A tile of any kind that becomes_f16(), but for what is read number by number.
template <int kWidth, int kKeys, class Team>
struct DecodeTile {
  Team& team;
  const TileSide<kKeys>& side;
  bool own;  // whether some page's numbers have scales of their own

  template <SideKind kind>
  KVA_LANE_CODE void run() {
    if constexpr (kind == SideKind::kF16) {
      copy_rows<kWidth>(team, side);
    } else if constexpr (is_by_channel(kind)) {
      for_tile_pages(side, [&](const TilePage& of, int32_t slot, int32_t from, int32_t to) {
        if (side.way(of) == UnitWay::kShared)
          decode_channels<kind, UnitWay::kShared, kWidth>(team, side, side.side(of), slot, from, to);
        else if (side.way(of) == UnitWay::kOwn)
          decode_channels<kind, UnitWay::kOwn, kWidth>(team, side, side.side(of), slot, from, to);
      });
    } else if constexpr (becomes_f16(kind)) {
      decode_tokens<kind, UnitWay::kShared, kWidth>(team, side);
      if constexpr (is_packed(kind))
        if (own) decode_tokens<kind, UnitWay::kOwn, kWidth>(team, side);
    }
  }
};

// Both sides of a tile: keys, then values. One copy of the code for both.
template <int kWidth, int kKeys, class Team>
KVA_LANE_CODE void decode_tile(Team& team, SideKind key_kind, SideKind value_kind, const TilePage* window,
                               const TileSlots<kKeys>& slots, uint16_t* keys, uint16_t* values) {
  bool kept = false;
  KVA_ROLLED
  for (int of = 0; of < 2; ++of) {
    const TileSide<kKeys> side{window, slots, of > 0, of > 0 ? values : keys};
    bool own = false;
    bool odd = false;
    for_tile_pages(side, [&](const TilePage& page, int32_t, int32_t, int32_t) {
      kept = kept || side.kept(page);
      own = own || side.way(page) == UnitWay::kOwn;
      odd = odd || side.way(page) == UnitWay::kOdd;
    });
    const SideKind kind = of > 0 ? value_kind : key_kind;
    DecodeTile<kWidth, kKeys, Team> decode{team, side, own};
    with_kind(kind, decode);
    if (odd) decode_odd<kWidth>(team, side);
    if (kind != SideKind::kF16 && slots.where[kKeys - 1] < 0) clear_empty<kWidth>(team, side);
  }
  if (!kept) return;
  team.sync();
  KVA_ROLLED
  for (int of = 0; of < 2; ++of)
    put_kept<kWidth>(team, TileSide<kKeys>{window, slots, of > 0, of > 0 ? values : keys});
}

}  // namespace kva
