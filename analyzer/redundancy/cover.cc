#include "analyzer/redundancy/cover.h"

#include <algorithm>

#include "analyzer/redundancy/pair_tile.h"
#include "runtime/interrupt.h"

namespace kva {
namespace {

// Frees `page` where a kept page among [first, first + n) is over the threshold.
void look_for_leader(std::vector<char>& freed, int64_t page, int64_t first, int64_t n,
                     const float* similarities, float threshold) {
  char& own = freed[static_cast<std::size_t>(page)];
  if (own) return;
  const char* others = freed.data() + first;
  int found = 0;
  for (int64_t j = 0; j < n; ++j) found |= static_cast<int>(similarities[j] > threshold) & (others[j] ^ 1);
  own = static_cast<char>(found);
}

}  // namespace

Cover cover_pages(const PageMatrix& pages, int head, std::span<const float> thresholds) {
  const int64_t count = pages.shape().pages;
  const std::vector<char> none(static_cast<std::size_t>(count));
  Cover cover{{thresholds.size(), none}, {thresholds.size(), none}};
  PairTile tile(pages, {Metric::kCosine, Metric::kL2}, true);
  for (int64_t row = 0; row < count; row += kTileRows) {
    throw_if_interrupted();
    const int64_t rows = std::min(kTileRows, count - row);
    // Pages of this block are decided in the last tile, which holds the whole diagonal: earlier tiles hold
    // only pages that are decided already.
    static_assert(kTileColumns % kTileRows == 0);
    for (int64_t column = 0; column < row + rows; column += kTileColumns) {
      tile.begin({row, rows, column, std::min(kTileColumns, row + rows - column)});
      tile.add_head(head);
      for (int64_t page = row; page < row + rows; ++page) {
        const int64_t n = std::min(kTileColumns, page - column);
        if (n <= 0) continue;
        tile.read_row(head, page - row, 0, n);
        for (std::size_t t = 0; t < thresholds.size(); ++t) {
          look_for_leader(cover.cosine[t], page, column, n, tile.values(Metric::kCosine), thresholds[t]);
          look_for_leader(cover.l2[t], page, column, n, tile.values(Metric::kL2), thresholds[t]);
        }
      }
    }
  }
  return cover;
}

}  // namespace kva
