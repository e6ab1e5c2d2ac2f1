// One tile of page pairs at a time: rows of similarities for a range of pages against another. Scratch space
// of one worker.
#pragma once

#include <array>
#include <cstdint>
#include <initializer_list>
#include <vector>

#include "analyzer/redundancy/page_matrix.h"

namespace kva {

inline constexpr int64_t kTileRows = 256;
inline constexpr int64_t kTileColumns = 256;

// Some of the metrics.
class MetricSet {
 public:
  constexpr MetricSet() = default;
  constexpr MetricSet(std::initializer_list<Metric> metrics) {
    for (const Metric metric : metrics) bits_ |= bit(metric);
  }
  static constexpr MetricSet all() {
    return {Metric::kCosine, Metric::kCosineCentered, Metric::kL2, Metric::kHamming, Metric::kJaccard};
  }
  constexpr bool has(Metric metric) const { return (bits_ & bit(metric)) != 0; }

 private:
  static constexpr unsigned bit(Metric metric) { return 1u << static_cast<int>(metric); }
  unsigned bits_ = 0;
};

// Pages [row, row + rows) against [column, column + columns).
struct TileRange {
  int64_t row = 0;
  int64_t rows = 0;
  int64_t column = 0;
  int64_t columns = 0;
};

class PairTile {
 public:
  // Only these metrics may be read; without single_heads, only of kJoinedHeads. The pages must outlive the
  // tile.
  PairTile(const PageMatrix& pages, MetricSet metrics, bool single_heads);

  // begin(), then add_head() for each head wanted: its products are computed and added to those of the joined
  // heads, and rows of that head may be read. After all heads join(); then rows of kJoinedHeads may be read.
  void begin(const TileRange& range);
  void add_head(int head);
  void join();

  // Fills values() for page range.row + r against columns [first, first + n) of the tile.
  void read_row(int head, int64_t r, int64_t first, int64_t n);
  const float* values(Metric metric) const { return values_[static_cast<std::size_t>(metric)].data(); }
  const float* distances() const { return distance_.data(); }  // in raw units

 private:
  template <class T>
  void add_to_joined(const std::vector<T>& head, std::vector<T>& joined) const;
  MatView<uint32_t> counts(std::vector<uint32_t>& data) const;
  void repair(int head, int64_t page, int64_t first_page, int64_t n, const float* dots);

  // What of one head is so of the joined ones.
  bool one_head() const { return pages_.shape().heads == 1; }

  const PageMatrix& pages_;
  const MetricSet metrics_;
  const bool cosine_or_l2_;
  const bool products_;
  const bool single_heads_;
  TileRange range_;
  int64_t heads_added_ = 0;
  std::vector<float> dots_, joined_dots_;
  std::vector<uint32_t> differing_, joined_differing_, common_;
  std::array<std::vector<float>, kMetrics> values_;
  std::vector<float> distance_;
};

}  // namespace kva
