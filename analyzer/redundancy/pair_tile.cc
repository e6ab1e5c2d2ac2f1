#include "analyzer/redundancy/pair_tile.h"

#include <algorithm>

#include "kernels/check.h"

namespace kva {

PairTile::PairTile(const PageMatrix& pages, bool bits) : pages_(pages), bits_(bits) {
  const std::size_t size = static_cast<std::size_t>(kTileRows * kTileColumns);
  dots_.resize(size);
  joined_dots_.resize(size);
  if (bits_) {
    differing_.resize(size);
    joined_differing_.resize(size);
    common_.resize(size);
  }
  for (auto& row : values_) row.resize(static_cast<std::size_t>(kTileColumns));
  distance_.resize(static_cast<std::size_t>(kTileColumns));
}

void PairTile::begin(const TileRange& range) {
  KVA_CHECK(range.rows <= kTileRows && range.columns <= kTileColumns, "a range within a tile");
  range_ = range;
  heads_added_ = 0;
  std::fill(joined_dots_.begin(), joined_dots_.end(), 0.0f);
  std::fill(joined_differing_.begin(), joined_differing_.end(), 0u);
}

void PairTile::add_head(int head) {
  ++heads_added_;
  const MatView<const float> pages = pages_.centred(head);
  dot_tile(pages.row_range(range_.row, range_.rows), pages.row_range(range_.column, range_.columns),
           MatView<float>(dots_.data(), range_.rows, range_.columns, kTileColumns));
  for (int64_t r = 0; r < range_.rows; ++r)
    for (int64_t k = r * kTileColumns; k < r * kTileColumns + range_.columns; ++k)
      joined_dots_[static_cast<std::size_t>(k)] += dots_[static_cast<std::size_t>(k)];
  if (!bits_) return;
  differing_bits_tile(pages_.signs(head), range_.row, range_.column, counts(differing_));
  for (std::size_t k = 0; k < differing_.size(); ++k) joined_differing_[k] += differing_[k];
  common_bits_tile(pages_.top(head), range_.row, range_.column, counts(common_));
}

void PairTile::join() {
  KVA_CHECK(heads_added_ == pages_.shape().heads, "all heads before join()");
  if (bits_) common_bits_tile(pages_.top(kJoinedHeads), range_.row, range_.column, counts(common_));
}

MatView<uint32_t> PairTile::counts(std::vector<uint32_t>& data) const {
  return {data.data(), range_.rows, range_.columns, kTileColumns};
}

void PairTile::read_row(int head, int64_t r, int64_t first, int64_t n) {
  KVA_CHECK(first + n <= range_.columns && r < range_.rows, "a row within the tile");
  const bool joined = head == kJoinedHeads;
  const int64_t offset = r * kTileColumns + first;
  const float* dots = (joined ? joined_dots_ : dots_).data() + offset;
  const int64_t page = range_.row + r;
  const int64_t first_page = range_.column + first;
  const auto out = [&](Metric metric) { return values_[static_cast<std::size_t>(metric)].data(); };
  const ProductRow row = {out(Metric::kCosine), out(Metric::kCosineCentered), out(Metric::kL2),
                          distance_.data()};
  if (similarity_row(dots, n, pages_.norms(head).view(), page, first_page, row))
    repair(head, page, first_page, n, dots);
  if (!bits_) return;
  hamming_row((joined ? joined_differing_ : differing_).data() + offset, n, pages_.scope_values(head),
              out(Metric::kHamming));
  jaccard_row(common_.data() + offset, n, pages_.top_size(head), out(Metric::kJaccard));
}

// The distance of nearly equal pages drowns in the rounding of the product: computed from the pages instead.
void PairTile::repair(int head, int64_t page, int64_t first_page, int64_t n, const float* dots) {
  const ScopeNorms& norms = pages_.norms(head);
  const float own = norms.centred_squared[static_cast<std::size_t>(page)];
  for (int64_t j = 0; j < n; ++j) {
    const float other = norms.centred_squared[static_cast<std::size_t>(first_page + j)];
    if (!nearly_equal(own, other, squared_distance(own, other, dots[j]))) continue;
    const ExactSimilarity exact = exact_similarity(pages_, page, pages_, first_page + j, head);
    const std::size_t k = static_cast<std::size_t>(j);
    values_[static_cast<std::size_t>(Metric::kCosine)][k] = exact.cosine;
    values_[static_cast<std::size_t>(Metric::kCosineCentered)][k] = exact.centred;
    values_[static_cast<std::size_t>(Metric::kL2)][k] = exact.l2;
    distance_[k] = static_cast<float>(exact.distance / pages_.unit());
  }
}

}  // namespace kva
