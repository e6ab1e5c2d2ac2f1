// What turns rows of numbers into a packed page: the ranges of its groups, and codes.
#pragma once

#include <cstddef>
#include <cstdint>

#include "kernels/packed.h"
#include "kernels/views.h"

namespace kva {

// Whether all numbers are within [-most, most]; NaN is not.
bool all_within(MatView<const float> rows, float most);

// The smallest and largest number of each group, by PackedPage::scale_of(): of those where `kept`
// [rows * cols] is 0; null: of all. A group without any gets low = +inf, high = -inf. Of `shape` its axis and
// group count. Returns whether all numbers, kept ones too, are within [-most, most]; else ranges are of
// numbers that may be infinite, or of others than NaN.
bool group_ranges(MatView<const float> rows, const PackedPage& shape, const uint8_t* kept, float most,
                  float* low, float* high);

// f16 scales, and zeros where those are not null, such that codes of `bits` bits reach over each range: with
// zeros, zero = low rounded and scale = (high - zero) / (2^bits - 1) rounded up; without, scale = the larger
// of -low and high, over 2^(bits-1) - 1 and rounded up. Ranges are within f16; a range of nothing (low >
// high) counts as 0 to 0.
void range_scales(const float* low, const float* high, int64_t count, int bits, uint16_t* scales,
                  uint16_t* zeros);

// Writes the page's rows: the codes of the numbers nearest to `rows`, (x - zero) / scale in f32 rounded to an
// integer; of two equally near codes the even one. Kept numbers, and all of groups with scale 0, get the code
// of 0: half of the codes where the page is symmetric, else the first.
void pack_numbers(MatView<const float> rows, const PackedPage& page, const uint8_t* kept, std::byte* packed);

// All three, in one pass over the rows where scales are by token: group_ranges(), range_scales() into scales
// and zeros (null: symmetric), and pack_numbers(). Of `shape` all but its pointers. Returns whether all
// numbers are within [-most, most]; else what is written is not whole.
bool encode_page(MatView<const float> rows, const PackedPage& shape, const uint8_t* kept, float most,
                 uint16_t* scales, uint16_t* zeros, std::byte* packed);

}  // namespace kva
