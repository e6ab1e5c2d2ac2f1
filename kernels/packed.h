// Pages of codes of 8, 4, 3 or 2 bits with f16 scales: packing, and products with queries and weights that
// unpack the codes in registers.
//
// Layout. Rows follow each other without padding, packed_row_bytes() each: tokens, or, for keys, channels. A
// sum over rows never runs across lanes: values are summed over tokens, scores over channels. Of a row of
// channels ("columns" are tokens where rows are channels), a lane holds the codes of k channels: k = 8 / bits
// in one byte, or k = 8 in three bytes where bits = 3. A row is cut into blocks of 16 k channels (16 lanes);
// the last one has what is left, n channels in m = ceil(n / k) lanes. In a block that starts at channel c and
// has m lanes, the code of channel c + j m + i (its j-th slice, i < m) is at bits [bits * j, bits * (j + 1))
// of lane i. The lanes' bytes follow each other; of three-byte lanes all the lowest bytes come first, then
// all the middle ones, then all the highest. So a load of bytes, widened, gives a slice of neighbouring
// channels with one AND; the shift that is left out is a power of two. Unused bits are 0.
//
// A number is code * scale + zero; symmetric pages have no zeros, there it is (code - 2^(bits-1)) * scale.
// Where codes stand for levels of a codebook, it is level * scale + zero, without zeros level * scale.
// Arithmetic is f32; every sum is taken in an order that depends on shapes alone.
#pragma once

#include <algorithm>
#include <cstddef>
#include <cstdint>

#include "kernels/views.h"

namespace kva {

// Which numbers share a scale: neighbouring channels of a token, or neighbouring tokens of a channel.
enum class ScaleAxis : uint8_t { kToken, kChannel };

// A packed page; owns nothing. Groups are `group` long, the last one has what is left; group >= 1.
struct PackedPage {
  const std::byte* codes = nullptr;
  int bits = 4;
  int64_t tokens = 0;
  int64_t width = 0;
  ScaleAxis axis = ScaleAxis::kToken;
  int64_t group = 1;
  // f16, scale_count() of each: [token, group of channels] or [group of tokens, channel]; 2-byte aligned.
  const uint16_t* scales = nullptr;
  const uint16_t* zeros = nullptr;  // null: symmetric
  const float* levels = nullptr;    // [2^bits]; null: codes are numbers themselves
  bool by_channel = false;          // packed rows are channels
  // As many codes that are read soon: products fetch them meanwhile. Null: none.
  const std::byte* ahead = nullptr;

  // Groups of a token where scales are per token, else of a channel.
  int64_t groups() const {
    const int64_t numbers = axis == ScaleAxis::kToken ? width : tokens;
    return group >= numbers ? numbers > 0 : (numbers + group - 1) / group;
  }
  int64_t code_bytes() const;
  // What a page without zeros adds to a number, in scales.
  float middle() const { return levels ? 0.0f : -static_cast<float>(1 << (bits - 1)); }
  int64_t scale_count() const { return groups() * (axis == ScaleAxis::kToken ? tokens : width); }
  // Where a number's scale is.
  int64_t scale_of(int64_t token, int64_t channel) const {
    if (axis == ScaleAxis::kToken) return group >= width ? token : token * groups() + channel / group;
    return group >= tokens ? channel : token / group * width + channel;
  }
};

// The blocks of a packed row.
struct PackedShape {
  static constexpr int64_t kLanes = 16;

  PackedShape(int bits_, int64_t width_)
      : bits(bits_),
        slices(1 << log2_slices(bits_)),
        lane_bytes(bits_ == 3 ? 3 : 1),
        width(width_),
        full_blocks(width_ >> (4 + log2_slices(bits_))),
        tail_lanes((width_ - full_blocks * kLanes * slices + slices - 1) >> log2_slices(bits_)) {}

  static constexpr int log2_slices(int bits) { return bits == 8 ? 0 : bits == 4 ? 1 : bits == 2 ? 2 : 3; }
  int64_t blocks() const { return full_blocks + (tail_lanes > 0); }
  int64_t lanes(int64_t block) const { return block < full_blocks ? kLanes : tail_lanes; }
  int64_t row_bytes() const { return (full_blocks * kLanes + tail_lanes) * lane_bytes; }
  // Channels [first, first + count) of a block's slice; the last ones of the row may be short or empty.
  int64_t first_channel(int64_t block, int64_t slice) const {
    return block * kLanes * slices + slice * lanes(block);
  }
  int64_t channels(int64_t block, int64_t slice) const {
    return std::clamp<int64_t>(width - first_channel(block, slice), 0, lanes(block));
  }

  int bits;
  int slices;
  int lane_bytes;
  int64_t width;
  int64_t full_blocks;
  int64_t tail_lanes;  // of the last block where that is not full
};

inline int64_t packed_row_bytes(int bits, int64_t width) { return PackedShape(bits, width).row_bytes(); }

// One row of `width` codes, each below 2^bits.
void pack_row(const uint8_t* codes, int bits, int64_t width, std::byte* packed);
// The part of a row behind its full blocks, written where it is in the whole row.
void pack_tail(const PackedShape& shape, const uint8_t* codes, std::byte* packed);
void unpack_row(const std::byte* packed, int bits, int64_t width, uint8_t* codes);

// Whether rows of channels take no more bytes than rows of tokens: so it is with whole blocks.
inline bool no_larger_by_channel(int bits, int64_t tokens, int64_t width) {
  return width * packed_row_bytes(bits, tokens) <= tokens * packed_row_bytes(bits, width);
}

inline int64_t PackedPage::code_bytes() const {
  return by_channel ? width * packed_row_bytes(bits, tokens) : tokens * packed_row_bytes(bits, width);
}

// Scales or zeros as f32, those of a group side by side: [group of channels, token] or [group of tokens,
// channel].
void packed_scales(const PackedPage& page, const uint16_t* stored, float* scales);

// Floats of scratch that the functions below want for pages of this shape and up to `queries` rows.
int64_t packed_scratch(int64_t queries, const PackedPage& shape);

// rows: [tokens, width], overwritten.
void packed_decode(const PackedPage& page, float* scratch, MatView<float> rows);

// scores(q, t) = queries row q · token t. scores: [queries.rows, tokens], overwritten. Fast by channel.
void packed_scores(MatView<const float> queries, const PackedPage& page, float* scratch,
                   MatView<float> scores);

// out row q += sum over t of weights(q, t) * token t. weights: [n, tokens]; out: [n, width]. Fast by token.
void packed_accumulate(MatView<const float> weights, const PackedPage& page, float* scratch,
                       MatView<float> out);

}  // namespace kva
