// Pages as device kernels read them: plain structs of offsets and addresses, the same on both sides.
#pragma once

#include <compare>
#include <cstddef>
#include <cstdint>
#include <initializer_list>

#include "kernels/host_device.h"

namespace kva {

// How the numbers of a page side are read. Of packed ones (kernels/packed.h) the rows are tokens, or channels
// where the name says so; only keys have those. kLevels: the codes are numbers of levels, which sides share
// (SideFormat::shared); the number is level * scale + zero. kCentroids: the codes are numbers of centroids of
// parts of a token, which sides share.
enum class SideKind : uint8_t {
  kF32,
  kF16,
  kBF16,
  kE4M3,
  kE5M2,
  kBits8,
  kBits4,
  kBits3,
  kBits2,
  kBits8ByChannel,
  kBits4ByChannel,
  kBits3ByChannel,
  kBits2ByChannel,
  kLevels8,
  kLevels4,
  kLevels3,
  kLevels2,
  kLevels8ByChannel,
  kLevels4ByChannel,
  kLevels3ByChannel,
  kLevels2ByChannel,
  kCentroids,
  // The numbers of a base, each token's multiplied by one of its own, and some tokens' own rows.
  kScaledBase,
};
inline constexpr int kSideKinds = 23;

KVA_HOST_DEVICE constexpr bool is_packed(SideKind kind) { return kind >= SideKind::kBits8; }
KVA_HOST_DEVICE constexpr bool has_levels(SideKind kind) {
  return kind >= SideKind::kLevels8 && kind <= SideKind::kLevels2ByChannel;
}
KVA_HOST_DEVICE constexpr bool is_by_channel(SideKind kind) {
  return (kind >= SideKind::kBits8ByChannel && kind <= SideKind::kBits2ByChannel) ||
         (kind >= SideKind::kLevels8ByChannel && kind <= SideKind::kLevels2ByChannel);
}
// Bits of a number.
KVA_HOST_DEVICE constexpr int side_bits(SideKind kind) {
  switch (kind) {
    case SideKind::kF32: return 32;
    case SideKind::kF16:
    case SideKind::kBF16: return 16;
    case SideKind::kBits4:
    case SideKind::kBits4ByChannel:
    case SideKind::kLevels4:
    case SideKind::kLevels4ByChannel: return 4;
    case SideKind::kBits3:
    case SideKind::kBits3ByChannel:
    case SideKind::kLevels3:
    case SideKind::kLevels3ByChannel: return 3;
    case SideKind::kBits2:
    case SideKind::kBits2ByChannel:
    case SideKind::kLevels2:
    case SideKind::kLevels2ByChannel: return 2;
    default: return 8;
  }
}
KVA_HOST_DEVICE constexpr int level_count(SideKind kind) {
  return has_levels(kind) ? 1 << side_bits(kind) : 0;
}

// What sides share (runtime/kv/side_memory.h), by its place in SideFormat::shared.
inline constexpr int kSharedNumbers = 0;  // what codes stand for: levels, centroids
inline constexpr int kSharedArrays = 1;

// Where in a payload what is, in bytes from its start, which is 16-byte aligned. Dense sides hold rows of
// tokens and nothing else. Packed ones are for pages of one number of tokens; their scales are f16 by
// PackedPage::scale_of(), and all offsets are even. -1: there is none.
struct SideFormat {
  SideKind kind = SideKind::kF16;
  bool scale_by_token = true;  // ScaleAxis::kToken
  // Rows are those of the tokens turned by kernels/hadamard.h. Kernels read them as they are: they are given
  // queries that are turned likewise, and what they sum is turned back.
  bool hadamard = false;
  // Rows are coefficients on the vectors of a basis, f16 [width, head dimension], at the page's key_base or
  // value_base; with `hadamard`, turned ones. Queries and sums go the same way.
  bool on_basis = false;
  int32_t width = 0;     // numbers of a token: a multiple of 8, but on a basis
  int32_t tokens = 0;    // of a packed page
  int32_t group = 1;     // numbers that share a scale: channels of a token, else tokens of a channel
  int32_t groups = 1;    // PackedPage::groups()
  int32_t codes_at = 0;  // packed rows
  int32_t scales_at = -1;
  int32_t zeros_at = -1;   // none: symmetric
  int32_t outliers = 0;    // numbers kept as f16 beside the codes, ascending by place
  int32_t places_at = -1;  // their places (token * width + channel), place_bits each
  int32_t place_bits = 0;
  int32_t outlier_values_at = -1;
  int32_t dense_channels = 0;      // channels kept as f16 beside the codes
  int32_t channels_at = -1;        // u16 each
  int32_t channel_values_at = -1;  // [dense channel, token]
  int32_t factors_at = -1;         // f16 [tokens], by which a token's numbers are multiplied
  int32_t base = -1;               // kScaledBase: the format of the page's key_base or value_base
  int32_t retained = 0;            // kScaledBase: tokens with rows of their own
  int32_t retained_at = -1;        // these tokens, u16 each, ascending
  int32_t retained_rows_at = -1;   // f16 [retained, width]
  // Tokens from the front that are f16 rows at the payload's start; all else is of the others, as a page of
  // its own. Only of packed kinds, as is the low-rank part.
  int32_t front = 0;
  // Of a low-rank part that is added to what the codes stand for: f16 [rank, tokens] and [rank, width].
  int32_t rank = 0;
  int32_t left_at = -1;
  int32_t right_at = -1;
  // kCentroids: codes of a token, each for as many channels, and their bits.
  int32_t parts = 1;
  int32_t code_bits = 8;
  int32_t bytes = 0;  // of the whole payload; dense: of one token
  // Addresses of what this side shares with others, f16; null: nothing.
  const void* shared[kSharedArrays] = {};

  // NOLINTNEXTLINE(modernize-use-nullptr): the check takes the comparison's own zero for a pointer
  friend auto operator<=>(const SideFormat&, const SideFormat&) = default;
};

// Whether kernels read parts one after the other: rare, so those that read everything do (AttentionBucket).
KVA_HOST_DEVICE constexpr bool has_parts(const SideFormat& format) {
  return format.front > 0 || format.rank > 0;
}

// Whether a packed page has one scale a token, or a channel where rows are channels, and units that can be
// read at once.
KVA_HOST_DEVICE constexpr bool has_plain_units(const SideFormat& format) {
  const bool by_channel = is_by_channel(format.kind);
  const int32_t bits = side_bits(format.kind);
  const int32_t length = by_channel ? format.tokens : format.width;
  const int32_t word = bits == 3 ? 1 : bits == 2 ? 2 : 4;
  return format.groups == 1 && (format.scale_by_token || by_channel) && format.factors_at < 0 &&
         !has_parts(format) && format.codes_at % word == 0 && length % 8 == 0;
}

// Whether a packed page keeps numbers beside its codes.
KVA_HOST_DEVICE constexpr bool keeps_numbers(const SideFormat& format) {
  return format.outliers > 0 || format.dense_channels > 0;
}

// Moves what the format has of a payload by `bytes` bytes, for a payload that begins with something else.
inline void move_offsets(SideFormat& format, int32_t bytes) {
  for (int32_t* at :
       {&format.codes_at, &format.scales_at, &format.zeros_at, &format.places_at, &format.outlier_values_at,
        &format.channels_at, &format.channel_values_at, &format.factors_at})
    if (*at >= 0) *at += bytes;
  format.bytes += bytes;
}

// A page of one KV head. Token j stands at start + j and its score gets no bias, unless it has places: then
// all its tokens are in every query's past, token j stands at start + offsets[j], and biases [tokens], where
// not null, are added to the scores (log n for a token that stands for n, -inf for a hidden one).
struct DevicePage {
  const std::byte* keys = nullptr;
  const std::byte* values = nullptr;
  const float* biases = nullptr;
  const void* offsets = nullptr;  // u16, or i32 where wide; only read where tokens' positions matter
  int32_t tokens = 0;
  int32_t start = 0;
  uint16_t key_format = 0;  // index of its SideFormat
  uint16_t value_format = 0;
  bool has_places = false;
  bool wide_offsets = false;
  // Which of a table's bases its sides are on, counted from 1; 0: none.
  uint16_t key_basis = 0;
  uint16_t value_basis = 0;
  // Where positions are counted among the tokens that a table still holds: how many of those are before the
  // page, hidden ones left out. -1: positions are those of the text.
  int32_t index = -1;
  const std::byte* key_base = nullptr;  // payload of a base or numbers of a basis, as the format asks
  const std::byte* value_base = nullptr;
};

// The most tokens a page may have.
inline constexpr int kMostPageTokens = 256;

KVA_HOST_DEVICE constexpr int64_t side_bytes(const SideFormat& format, int64_t tokens) {
  return is_packed(format.kind) ? format.bytes : tokens * format.bytes;
}

}  // namespace kva
