// Pairs of pages on a device: what one thread does with a tile of products or bit counts. The arithmetic of a
// pair is similarity_math.h, as on the CPU. Totals are sums of integers, bests are maxima, and lists of
// partners have a total order, so that results do not depend on the order in which threads come.
//
// `Block` is what threads share: add(to, value) adds the values of all threads of a warp, which all call it;
// add_one(to, value) and take(to, value) add one thread's, take() to 32 bits and with what was there;
// raise(to, value) and lower(to, value) keep the larger resp. smaller, and raise() of 64 bits tells what was
// there. `Warp` is that of kernels/attention_keys.h, with shuffle_xor() of doubles too.
#pragma once

#include <cmath>
#include <cstdint>

#include "kernels/bit_math.h"
#include "kernels/host_device.h"
#include "kernels/similarity_job.h"

namespace kva {

// --- Counts of bits
// ------------------------------------------------------------------------------------------

// Column job.column + c against the kBitRows rows from job.row + r; rows past the last are not written.
KVA_LANE_CODE inline void count_bits_of(const BitCountJob& job, int32_t r, int32_t c) {
  const int32_t j = job.column + c;
  if (j <= job.row + r) return;
  const int32_t rows = job.rows - r < kBitRows ? job.rows - r : kBitRows;
  uint32_t sums[kBitRows] = {};
  const uint64_t* words = job.words + job.row + r;
  const uint64_t* own = job.words + j;
  for (int32_t w = 0; w < job.count; ++w, words += job.pages_stride, own += job.pages_stride) {
    const uint64_t word = *own;
    KVA_UNROLL
    for (int32_t k = 0; k < kBitRows; ++k) {
      // Past the last row, the last row again.
      const uint64_t other = words[k < rows ? k : rows - 1];
      sums[k] += ones_of(job.common ? word & other : word ^ other);
    }
  }
  KVA_UNROLL
  for (int32_t k = 0; k < kBitRows; ++k)
    if (k < rows) job.counts[(r + k) * job.stride + c] = sums[k];
}

// --- Totals of pairs
// ------------------------------------------------------------------------------------------

// A block's: counts of two neighbouring bins share a word.
template <int kMetrics>
struct PairShared {
  uint32_t bins[kMetrics][kHistogramBins / 2];
  int32_t row_best[kMetrics][kPairRows];
  int32_t row_worst[kPairRows];  // partner_order() of the last partner of each row
};

// One thread's of one metric.
struct ColumnTotals {
  int32_t sum = 0;
  int64_t squares = 0;
  uint64_t over = 0;  // 8 bits a threshold
  int32_t least = 0x40000000;
  int32_t largest = kNoPairKey;
};

KVA_LANE_CODE inline float low_of(PairKind kind) { return kind == PairKind::kProducts ? -1.0f : 0.0f; }

KVA_LANE_CODE inline int32_t bin_of(PairKind kind, float value) {
  const float low = low_of(kind);
  return histogram_bin(value, low, static_cast<float>(kHistogramBins) / (1.0f - low), kHistogramBins);
}

KVA_LANE_CODE inline int64_t fixed_distance(float distance) {
  return static_cast<int64_t>(rintf(distance * 1048576.0f));
}

KVA_LANE_CODE inline void add_value(ColumnTotals& totals, const PairJob& job, float value) {
  const auto fixed = static_cast<int32_t>(rintf(value * kFixedOne));
  totals.sum += fixed;
  totals.squares += int64_t{fixed} * fixed;
  for (int32_t t = 0; t < job.threshold_count; ++t)
    totals.over += static_cast<uint64_t>(value > job.thresholds[t]) << (8 * t);
  const int32_t key = order_key(value);
  totals.least = key < totals.least ? key : totals.least;
  totals.largest = key > totals.largest ? key : totals.largest;
}

// Into a list of partner_key()s, largest first. A list that several threads offer to ends as if one had: each
// place keeps the largest that came to it and sends on the others.
template <class Block>
KVA_LANE_CODE void offer_partner(Block& block, uint64_t* list, int32_t count, uint64_t key) {
  for (int32_t k = 0; k < count && key != 0; ++k) {
    if (list[k] > key) continue;
    const uint64_t before = block.raise(list + k, key);
    key = before < key ? before : key;
  }
}

// Similarities of two pages from their product. False where they nearly equal each other: not from it.
KVA_LANE_CODE inline bool product_values(const PageNorms& norms, int32_t i, int32_t j, float dot,
                                         float* values, float& distance) {
  const float squared = squared_distance(norms.centred_squared[i], norms.centred_squared[j], dot);
  if (nearly_equal(norms.centred_squared[i], norms.centred_squared[j], squared, norms.near)) return false;
  const float plain = dot + (norms.mean_dot[j] + (norms.mean_dot[i] + norms.mean_squared));
  values[0] = cosine_similarity(plain, norms.inverse[i], norms.inverse[j]);
  values[1] = cosine_similarity(dot, norms.centred_inverse[i], norms.centred_inverse[j]);
  distance = sqrtf(squared);
  values[2] = l2_similarity(distance, norms.norm[i], norms.norm[j]);
  return true;
}

template <PairKind kKind>
KVA_LANE_CODE void begin_item(const PairJob& job, const PairItem& item, int32_t thread, int32_t threads,
                              PairShared<metrics_of(kKind)>& shared) {
  for (int m = 0; m < metrics_of(kKind); ++m) {
    for (int32_t b = thread; b < kHistogramBins / 2; b += threads) shared.bins[m][b] = 0;
    for (int32_t r = thread; r < kPairRows; r += threads) shared.row_best[m][r] = kNoPairKey;
  }
  if (!job.partners) return;
  for (int32_t r = thread; r < item.rows; r += threads)
    shared.row_worst[r] =
        partner_order(job.partners[int64_t{item.row + r} * job.partner_count + job.partner_count - 1]);
}

// One column of an item.
template <PairKind kKind, class Block>
class ItemColumn {
 public:
  static constexpr int kMetrics = metrics_of(kKind);
  using Shared = PairShared<kMetrics>;

  // Column `column` of item `item`, which may be past its last one.
  KVA_LANE_CODE ItemColumn(Block& block, const PairJob& job, int32_t item, int32_t column, Shared& shared)
      : block_(block),
        job_(job),
        item_(job.items[item]),
        item_index_(item),
        column_(column),
        j_(item_.column + column),
        shared_(shared) {}

  // Against all rows before it.
  KVA_LANE_CODE void take() {
    if (column_ >= item_.columns) return;
    const int32_t before = j_ - item_.row;
    const int32_t rows = before < item_.rows ? before : item_.rows;
    if (rows <= 0) return;
    if (job_.partners) worst_ = worst_of(j_);
    for (int32_t r = 0; r < rows; ++r) take_pair(r);
    put_heat();
    for (int m = 0; m < kMetrics; ++m)
      block_.raise(job_.out.column_best[item_.across] + m * job_.out.pages + j_, totals_[m].largest);
  }

  // After take(), of all threads of a warp together.
  KVA_LANE_CODE void finish() {
    for (int m = 0; m < kMetrics; ++m) {
      PairSums& to = job_.out.totals[int64_t{m} * job_.out.groups + item_.group];
      const ColumnTotals& own = totals_[m];
      block_.add(&to.count, count_);
      block_.add(&to.sum, static_cast<uint64_t>(int64_t{own.sum}));
      block_.add(&to.squares_high, static_cast<uint64_t>(own.squares >> 24));
      block_.add(&to.squares_low, static_cast<uint64_t>(own.squares & 0xffffff));
      for (int32_t t = 0; t < job_.threshold_count; ++t) block_.add(&to.over[t], own.over >> (8 * t) & 0xff);
      if (kKind == PairKind::kProducts && m == 2) block_.add(&to.distance, static_cast<uint64_t>(distance_));
      if (count_ > 0) {
        block_.lower(&to.least, own.least);
        block_.raise(&to.largest, own.largest);
      }
    }
  }

 private:
  KVA_LANE_CODE int32_t worst_of(int32_t page) const {
    return partner_order(job_.partners[int64_t{page} * job_.partner_count + job_.partner_count - 1]);
  }

  KVA_LANE_CODE void take_pair(int32_t r) {
    const int32_t i = item_.row + r;
    const int64_t at = (i - job_.tile_row) * job_.tile_stride + (j_ - job_.tile_column);
    float values[kMetrics];
    float distance = 0.0f;
    if constexpr (kKind == PairKind::kProducts) {
      const float dot = joined(static_cast<const float*>(job_.tile)[at], at);
      if (!product_values(job_.norms, i, j_, dot, values, distance)) {
        job_.near[block_.take(job_.near_count, 1u)] = static_cast<uint32_t>(item_index_) << 14 |
                                                      static_cast<uint32_t>(r) << 8 |
                                                      static_cast<uint32_t>(column_);
        return;
      }
      distance_ += fixed_distance(distance);
    } else {
      const uint32_t count = joined(static_cast<const uint32_t*>(job_.tile)[at], at);
      values[0] = kKind == PairKind::kHamming ? hamming_similarity(count, job_.size)
                                              : jaccard_similarity(count, job_.size);
    }
    ++count_;
    for (int m = 0; m < kMetrics; ++m) {
      add_value(totals_[m], job_, values[m]);
      const int32_t key = order_key(values[m]);
      if (key > shared_.row_best[m][r]) block_.raise(&shared_.row_best[m][r], key);
      const int32_t bin = bin_of(kKind, values[m]);
      if (job_.out.histogram) block_.take(&shared_.bins[m][bin / 2], 1u << (16 * (bin & 1)));
    }
    if constexpr (kKind == PairKind::kProducts) {
      if (job_.partners) offer(i, r, values[1]);
      if (job_.heat_bin) add_heat(i, values[1]);
    }
  }

  template <class T>
  KVA_LANE_CODE T joined(T own, int64_t at) const {
    if (job_.joined) {
      T* to = static_cast<T*>(job_.joined) + at;
      *to = job_.joined_starts ? own : *to + own;
    }
    return own;
  }

  // Most pairs are below the last partner of both pages.
  KVA_LANE_CODE void offer(int32_t i, int32_t r, float similarity) {
    const int32_t order = partner_order(partner_key(similarity, 0));
    if (order >= shared_.row_worst[r]) {
      offer_partner(block_, job_.partners + int64_t{i} * job_.partner_count, job_.partner_count,
                    partner_key(similarity, j_));
      block_.raise(&shared_.row_worst[r], worst_of(i));
    }
    if (order < worst_) return;
    offer_partner(block_, job_.partners + int64_t{j_} * job_.partner_count, job_.partner_count,
                  partner_key(similarity, i));
    worst_ = worst_of(j_);
  }

  // Rows of one cell come after each other.
  KVA_LANE_CODE void add_heat(int32_t i, float similarity) {
    const int32_t cell = job_.heat_bin[i] * job_.heat_bins + job_.heat_bin[j_];
    if (cell != cell_) put_heat();
    cell_ = cell;
    heat_sum_ += static_cast<int64_t>(similarity * kFixedOne);
    ++heat_count_;
  }
  KVA_LANE_CODE void put_heat() {
    if (heat_count_ == 0) return;
    block_.add_one(job_.heat_sums + cell_, static_cast<uint64_t>(heat_sum_));
    block_.add_one(job_.heat_counts + cell_, heat_count_);
    heat_sum_ = 0;
    heat_count_ = 0;
  }

  Block& block_;
  const PairJob& job_;
  const PairItem item_;
  const int32_t item_index_;
  const int32_t column_;
  const int32_t j_;
  Shared& shared_;
  ColumnTotals totals_[kMetrics];
  uint64_t count_ = 0;
  int64_t distance_ = 0;
  int32_t worst_ = 0;  // partner_order() of the last partner of page j
  int32_t cell_ = -1;
  int64_t heat_sum_ = 0;
  uint64_t heat_count_ = 0;
};

// What the block counted, after all of its columns.
template <PairKind kKind, class Block>
KVA_LANE_CODE void finish_item(Block& block, const PairJob& job, const PairItem& item, int32_t thread,
                               int32_t threads, const PairShared<metrics_of(kKind)>& shared) {
  for (int m = 0; m < metrics_of(kKind); ++m) {
    uint64_t* histogram = job.out.histogram + (int64_t{m} * job.out.groups + item.group) * kHistogramBins;
    for (int32_t b = thread; job.out.histogram && b < kHistogramBins / 2; b += threads) {
      const uint32_t both = shared.bins[m][b];
      if (both & 0xffff) block.add_one(histogram + int64_t{2} * b, both & 0xffff);
      if (both >> 16) block.add_one(histogram + int64_t{2} * b + 1, both >> 16);
    }
    for (int32_t r = thread; r < item.rows; r += threads)
      block.raise(job.out.row_best[item.across] + m * job.out.pages + item.row + r, shared.row_best[m][r]);
  }
}

// --- Pairs that nearly equal each other
// -----------------------------------------------------------------------

template <class Warp>
KVA_LANE_CODE double sum_of_warp(Warp& warp, double value) {
  for (int mask = 16; mask > 0; mask /= 2) value += warp.shuffle_xor(value, mask);
  return value;
}

// Similarities of pages i and j from their own numbers, as the analyzer's exact_similarity(); for all lanes.
template <class Warp>
KVA_LANE_CODE void exact_values(Warp& warp, const ExactPages& pages, int32_t i, int32_t j, float* values,
                                float& distance) {
  double centred = 0.0, plain = 0.0, squared = 0.0;
  for (int32_t h = 0; h < pages.heads; ++h) {
    const float* x = pages.values + h * pages.head_stride + int64_t{i} * pages.numbers;
    const float* y = pages.values + h * pages.head_stride + int64_t{j} * pages.numbers;
    for (int32_t k = warp.lane(); k < pages.numbers; k += 32) {
      const double mean = double{pages.means[h * pages.channels + k % pages.channels]};
      const double full_x = (double{x[k]} + mean) * pages.unit;
      const double full_y = (double{y[k]} + mean) * pages.unit;
      centred += double{x[k]} * double{y[k]};
      plain += full_x * full_y;
      squared += (full_x - full_y) * (full_x - full_y);
    }
  }
  centred = sum_of_warp(warp, centred);
  plain = sum_of_warp(warp, plain);
  const double length = sqrt(sum_of_warp(warp, squared));
  const auto cosine = [](double dot, double norm_x, double norm_y) {
    if (norm_x == 0.0 || norm_y == 0.0) return 0.0f;
    return clamp_similarity(static_cast<float>(dot / norm_x / norm_y));
  };
  const double norm_x = pages.norm[i] * pages.unit;
  const double norm_y = pages.norm[j] * pages.unit;
  const double larger = norm_x > norm_y ? norm_x : norm_y;
  values[0] = cosine(plain, norm_x, norm_y);
  values[1] = cosine(centred, pages.centred[i], pages.centred[j]);
  values[2] = larger > 0.0 ? clamp_similarity(static_cast<float>(1.0 - length / larger)) : 1.0f;
  distance = static_cast<float>(length / pages.unit);
}

// One thread adds one pair to everything.
template <class Block>
KVA_LANE_CODE void add_exact_pair(Block& block, const PairJob& job, const PairItem& item, int32_t i,
                                  int32_t j, const float* values, float distance) {
  for (int m = 0; m < 3; ++m) {
    ColumnTotals own;
    add_value(own, job, values[m]);
    const int64_t place = int64_t{m} * job.out.groups + item.group;
    PairSums& to = job.out.totals[place];
    block.add_one(&to.count, 1);
    block.add_one(&to.sum, static_cast<uint64_t>(int64_t{own.sum}));
    block.add_one(&to.squares_high, static_cast<uint64_t>(own.squares >> 24));
    block.add_one(&to.squares_low, static_cast<uint64_t>(own.squares & 0xffffff));
    for (int32_t t = 0; t < job.threshold_count; ++t)
      if (own.over >> (8 * t) & 0xff) block.add_one(&to.over[t], 1);
    if (m == 2) block.add_one(&to.distance, static_cast<uint64_t>(fixed_distance(distance)));
    block.lower(&to.least, own.least);
    block.raise(&to.largest, own.largest);
    if (job.out.histogram)
      block.add_one(job.out.histogram + place * kHistogramBins + bin_of(PairKind::kProducts, values[m]), 1);
    block.raise(job.out.row_best[item.across] + m * job.out.pages + i, own.largest);
    block.raise(job.out.column_best[item.across] + m * job.out.pages + j, own.largest);
  }
  if (job.partners) {
    const int32_t count = job.partner_count;
    offer_partner(block, job.partners + int64_t{i} * count, count, partner_key(values[1], j));
    offer_partner(block, job.partners + int64_t{j} * count, count, partner_key(values[1], i));
  }
  if (!job.heat_bin) return;
  const int32_t cell = job.heat_bin[i] * job.heat_bins + job.heat_bin[j];
  block.add_one(job.heat_sums + cell, static_cast<uint64_t>(static_cast<int64_t>(values[1] * kFixedOne)));
  block.add_one(job.heat_counts + cell, 1);
}

// Pair `index` of those that job.near holds.
template <class Warp, class Block>
KVA_LANE_CODE void take_near(Warp& warp, Block& block, const PairJob& job, uint32_t index) {
  const uint32_t which = job.near[index];
  const PairItem item = job.items[which >> 14];
  const int32_t i = item.row + static_cast<int32_t>(which >> 8 & 0x3f);
  const int32_t j = item.column + static_cast<int32_t>(which & 0xff);
  float values[3];
  float distance = 0.0f;
  exact_values(warp, job.exact, i, j, values, distance);
  if (warp.lane() == 0) add_exact_pair(block, job, item, i, j, values, distance);
}

}  // namespace kva
