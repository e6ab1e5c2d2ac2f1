// The nearest of many centroids by searches that take some of them at a time.
#pragma once

#include <algorithm>
#include <cstdint>
#include <vector>

#include "kernels/views.h"

namespace kva {

// search(block, labels, distances) gives the first nearest row of a block to each of `count` points, and the
// distance to it. labels[i] = the first nearest of all centroids, distances[i] the distance; blocks are of at
// most `most` rows, in order. centroids.rows >= 1.
template <typename Search>
void search_in_blocks(MatView<const float> centroids, int64_t most, int64_t count, int64_t* labels,
                      float* distances, const Search& search) {
  search(centroids.row_range(0, std::min(most, centroids.rows)), labels, distances);
  if (centroids.rows <= most) return;
  std::vector<int64_t> found(static_cast<std::size_t>(count));
  std::vector<float> at(found.size());
  for (int64_t first = most; first < centroids.rows; first += most) {
    search(centroids.row_range(first, std::min(most, centroids.rows - first)), found.data(), at.data());
    for (std::size_t i = 0; i < found.size(); ++i)
      if (at[i] < distances[i]) {
        labels[i] = first + found[i];
        distances[i] = at[i];
      }
  }
}

}  // namespace kva
