// Numbers of a page side that are kept as f16 beside codes, with their places: those that would stretch the
// ranges of the rest (KVQuant, arXiv 2401.18079, section 3.4; here a fixed count a page side, so that a
// page's size is known).
#pragma once

#include <cstddef>
#include <cstdint>
#include <vector>

#include "kernels/packed.h"
#include "kernels/sparse.h"
#include "kernels/views.h"

namespace kva {

// ceil(share * numbers). 0 <= share <= 1.
int64_t outlier_count(double share, int64_t numbers);

// Of the place of one among so many numbers.
int outlier_place_bits(int64_t numbers);

// Of a list: 2 bytes a value, and for a place as many bits as the page side's count of numbers needs; even.
int64_t outlier_bytes(int64_t count, int64_t numbers);

// The places (token * cols + channel), ascending, of the `count` numbers with the largest |x - mean| /
// sqrt(std) of their group, as kernels/outlier_math.h computes it; of equal ones the first. Groups are
// `group` long along the axis, as in PackedPage. kept: null, or 1 for numbers that count for nothing and come
// last, by place. Numbers are finite.
std::vector<int64_t> farthest_numbers(MatView<const float> rows, ScaleAxis axis, int64_t group, int64_t count,
                                      const uint8_t* kept = nullptr);

// Lists the numbers at `places`, each at most f16's largest, in outlier_bytes().
void write_outliers(MatView<const float> rows, const std::vector<int64_t>& places, std::byte* list);

// Puts a list of `count` numbers back into their rows.
void restore_outliers(const std::byte* list, int64_t count, MatView<float> rows);

// Whether every place of a list that a stranger wrote is below `numbers`.
bool outliers_within(const std::byte* list, int64_t count, int64_t numbers);

// A list as attention over the page reads it: each number less what its code decodes to, coded[] of its group
// (PackedPage::scale_of()); null: 0. Good as long as `scratch`, outlier_scratch() floats.
SparseNumbers read_outliers(const std::byte* list, int64_t count, const PackedPage& page, const float* coded,
                            float* scratch);
inline int64_t outlier_scratch(int64_t count) { return 3 * count; }

}  // namespace kva
