#include "analyzer/redundancy/pair_tile.h"

#include <algorithm>
#include <functional>

#include "kernels/check.h"

namespace kva {

PairTile::PairTile(const PageMatrix& pages, MetricSet metrics, bool single_heads)
    : pages_(pages),
      metrics_(metrics),
      cosine_or_l2_(metrics.has(Metric::kCosine) || metrics.has(Metric::kL2)),
      products_(cosine_or_l2_ || metrics.has(Metric::kCosineCentered)),
      single_heads_(single_heads) {
  constexpr auto kSize = static_cast<std::size_t>(kTileRows * kTileColumns);
  if (products_) dots_.resize(kSize);
  if (products_ && !one_head()) joined_dots_.resize(kSize);
  if (metrics.has(Metric::kHamming)) differing_.resize(kSize);
  if (metrics.has(Metric::kHamming) && !one_head()) joined_differing_.resize(kSize);
  if (metrics.has(Metric::kJaccard)) common_.resize(kSize);
  for (auto& row : values_) row.resize(static_cast<std::size_t>(kTileColumns));
  distance_.resize(static_cast<std::size_t>(kTileColumns));
}

void PairTile::begin(const TileRange& range) {
  KVA_CHECK(range.rows <= kTileRows && range.columns <= kTileColumns, "a range within a tile");
  range_ = range;
  heads_added_ = 0;
}

// joined = or += counts or products of one head, all of the tile's rows.
template <class T>
void PairTile::add_to_joined(const std::vector<T>& head, std::vector<T>& joined) const {
  const auto used = static_cast<std::ptrdiff_t>(range_.rows * kTileColumns);
  if (heads_added_ == 1)
    std::copy(head.begin(), head.begin() + used, joined.begin());
  else
    std::transform(head.begin(), head.begin() + used, joined.begin(), joined.begin(), std::plus<>());
}

void PairTile::add_head(int head) {
  ++heads_added_;
  if (products_) {
    const MatView<float> dots(dots_.data(), range_.rows, range_.columns, kTileColumns);
    const auto multiply = [&](const auto& pages) {
      dot_tile(pages.row_range(range_.row, range_.rows), pages.row_range(range_.column, range_.columns),
               dots);
    };
    pages_.rounds_products() ? multiply(pages_.rounded(head)) : multiply(pages_.centred(head));
    if (!one_head()) add_to_joined(dots_, joined_dots_);
  }
  if (metrics_.has(Metric::kHamming)) {
    differing_bits_tile(pages_.signs(head), range_.row, range_.column, counts(differing_));
    if (!one_head()) add_to_joined(differing_, joined_differing_);
  }
  if (metrics_.has(Metric::kJaccard) && single_heads_)
    common_bits_tile(pages_.top(head), range_.row, range_.column, counts(common_));
}

void PairTile::join() {
  KVA_CHECK(heads_added_ == pages_.shape().heads, "all heads before join()");
  if (metrics_.has(Metric::kJaccard) && !(one_head() && single_heads_))
    common_bits_tile(pages_.top(kJoinedHeads), range_.row, range_.column, counts(common_));
}

MatView<uint32_t> PairTile::counts(std::vector<uint32_t>& data) const {
  return {data.data(), range_.rows, range_.columns, kTileColumns};
}

void PairTile::read_row(int head, int64_t r, int64_t first, int64_t n) {
  KVA_CHECK(first + n <= range_.columns && r < range_.rows, "a row within the tile");
  KVA_CHECK(head == kJoinedHeads || single_heads_, "rows of one head of a tile that has them");
  const bool joined = head == kJoinedHeads && !one_head();
  const int64_t offset = r * kTileColumns + first;
  const int64_t page = range_.row + r;
  const int64_t first_page = range_.column + first;
  const auto out = [&](Metric metric) { return values_[static_cast<std::size_t>(metric)].data(); };
  if (products_) {
    const float* dots = (joined ? joined_dots_ : dots_).data() + offset;
    ProductRow row;
    row.centred = out(Metric::kCosineCentered);
    if (cosine_or_l2_)
      row = {out(Metric::kCosine), out(Metric::kCosineCentered), out(Metric::kL2), distance_.data()};
    if (similarity_row(dots, n, pages_.norms(head).view(), page, first_page, row))
      repair(head, page, first_page, n, dots);
  }
  if (metrics_.has(Metric::kHamming))
    hamming_row((joined ? joined_differing_ : differing_).data() + offset, n, pages_.scope_values(head),
                out(Metric::kHamming));
  if (metrics_.has(Metric::kJaccard))
    jaccard_row(common_.data() + offset, n, pages_.top_size(head), out(Metric::kJaccard));
}

// The distance of nearly equal pages drowns in the rounding of the product: computed from the pages instead.
void PairTile::repair(int head, int64_t page, int64_t first_page, int64_t n, const float* dots) {
  const ScopeNorms& norms = pages_.norms(head);
  const float own = norms.centred_squared[static_cast<std::size_t>(page)];
  for (int64_t j = 0; j < n; ++j) {
    const float other = norms.centred_squared[static_cast<std::size_t>(first_page + j)];
    if (!nearly_equal(own, other, squared_distance(own, other, dots[j]), norms.near)) continue;
    const ExactSimilarity exact = exact_similarity(pages_, page, pages_, first_page + j, head);
    const std::size_t k = static_cast<std::size_t>(j);
    values_[static_cast<std::size_t>(Metric::kCosine)][k] = exact.cosine;
    values_[static_cast<std::size_t>(Metric::kCosineCentered)][k] = exact.centred;
    values_[static_cast<std::size_t>(Metric::kL2)][k] = exact.l2;
    distance_[k] = static_cast<float>(exact.distance / pages_.unit());
  }
}

}  // namespace kva
