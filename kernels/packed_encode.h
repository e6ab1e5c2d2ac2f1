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
// group count.
void group_ranges(MatView<const float> rows, const PackedPage& shape, const uint8_t* kept, float* low,
                  float* high);

// Writes the page's rows: the codes of the numbers nearest to `rows`, with the page's scales and zeros; of
// two equally near codes the even one. Kept numbers, and all of groups with scale 0, get the code of 0: half
// of the codes where the page is symmetric, else the first.
void pack_numbers(MatView<const float> rows, const PackedPage& page, const uint8_t* kept, std::byte* packed);

}  // namespace kva
