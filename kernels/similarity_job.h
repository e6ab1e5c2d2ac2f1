// What a device compares: jobs of plain numbers and addresses, and keys that order similarities as integers.
// kernels/similarity_lanes.h does them.
#pragma once

#include <cstdint>

#include "kernels/host_device.h"
#include "kernels/similarity.h"
#include "kernels/value_math.h"

namespace kva {

// Ints that order like the floats; not NaN.
KVA_HOST_DEVICE inline int32_t order_key(float value) {
  const auto bits = static_cast<int32_t>(bits_of(value));
  return bits < 0 ? bits ^ 0x7fffffff : bits;
}
KVA_HOST_DEVICE inline float value_of_key(int32_t key) {
  return float_of(static_cast<uint32_t>(key < 0 ? key ^ 0x7fffffff : key));
}

// Orders partners of a page: the larger the more similar, of equal ones the lower page. 0: none.
KVA_HOST_DEVICE inline uint64_t partner_key(float similarity, int32_t page) {
  const uint32_t key = static_cast<uint32_t>(order_key(similarity + 0.0f)) ^ 0x80000000u;  // -0 as 0
  return uint64_t{key} << 32 | (0xffffffffu - static_cast<uint32_t>(page));
}
KVA_HOST_DEVICE inline int32_t partner_page(uint64_t key) {
  return static_cast<int32_t>(0xffffffffu - static_cast<uint32_t>(key));
}
KVA_HOST_DEVICE inline int32_t partner_order(uint64_t key) {
  return static_cast<int32_t>(static_cast<uint32_t>(key >> 32) ^ 0x80000000u);
}
KVA_HOST_DEVICE inline float partner_similarity(uint64_t key) { return value_of_key(partner_order(key)); }

// counts[(i - row) * stride + j - column] = bits that differ, or with `common` are set in both, of pages i in
// [row, row + rows) and j in [column, column + columns), j > i; other places may keep what they held. Word w
// of page p is words[w * pages_stride + p].
struct BitCountJob {
  const uint64_t* words = nullptr;
  int64_t pages_stride = 0;
  int32_t count = 0;  // words of a page
  bool common = false;
  int32_t row = 0, rows = 0;
  int32_t column = 0, columns = 0;
  uint32_t* counts = nullptr;
  int64_t stride = 0;
};

inline constexpr int32_t kBitRows = 8;  // of one thread

inline constexpr int32_t kPairRows = 64;      // of an item: an 8-bit count of a thread's values holds them
inline constexpr int32_t kPairColumns = 256;  // of an item: a 16-bit count of all its values holds them
inline constexpr int32_t kMostPairItems = 1 << 18;

// What one block looks at: pairs (i, j), j > i, of pages [row, row + rows) and [column, column + columns).
struct PairItem {
  int32_t row = 0, rows = 0;
  int32_t column = 0, columns = 0;
  int32_t group = 0;   // whose totals they are
  int32_t across = 0;  // 1: best partners in another set
};

// ValueTotals on a device, in two's complement; least and largest as order_key().
struct PairSums {
  uint64_t count = 0;
  uint64_t sum = 0;
  uint64_t squares_high = 0;
  uint64_t squares_low = 0;
  uint64_t distance = 0;  // of kProducts: in units of 2^-20, each rounded
  uint64_t over[kMaxThresholds] = {};
  int32_t least = 0x40000000;     // 2
  int32_t largest = -0x40000001;  // -2
};
inline constexpr int32_t kNoPairKey = -0x40000001;  // order_key(-2)

// Metric m of the job is m-th of each: totals[m * groups + group], histogram[the same * kHistogramBins],
// row_best[across][m * pages + page].
struct PairOutputs {
  PairSums* totals = nullptr;
  uint64_t* histogram = nullptr;  // null: none
  int32_t groups = 0;
  int64_t pages = 0;
  int32_t* row_best[2] = {};     // of page i, order_key(); by PairItem::across
  int32_t* column_best[2] = {};  // of page j
};

// The pages themselves, for pairs that nearly equal each other: number k of head h of page p is
// values[h * head_stride + p * numbers + k], less means[h * channels + k % channels].
struct ExactPages {
  const float* values = nullptr;
  int64_t head_stride = 0;
  int32_t heads = 0;    // of the scope
  int32_t numbers = 0;  // of a page's head
  int32_t channels = 0;
  const float* means = nullptr;
  double unit = 1.0;
  const double* norm = nullptr;  // [pages], without unit
  const double* centred = nullptr;
};

// kProducts: cosine, centred cosine and L2 from products of centred pages.
enum class PairKind { kProducts, kHamming, kJaccard };
KVA_HOST_DEVICE constexpr int metrics_of(PairKind kind) { return kind == PairKind::kProducts ? 3 : 1; }

// All addresses are the device's. Pages i and j have tile[(i - tile_row) * tile_stride + j - tile_column].
struct PairJob {
  PairKind kind = PairKind::kProducts;
  const PairItem* items = nullptr;
  int32_t count = 0;           // items, at most kMostPairItems
  const void* tile = nullptr;  // f32 products, resp. uint32 counts
  int32_t tile_row = 0;
  int32_t tile_column = 0;
  int64_t tile_stride = 0;
  // Laid out as the tile; null, or where the tile is added, or with joined_starts written, for all pairs.
  void* joined = nullptr;
  bool joined_starts = false;
  float thresholds[kMaxThresholds] = {};
  int32_t threshold_count = 0;
  PairOutputs out;

  uint32_t size = 0;  // kHamming: bits of a page; kJaccard: elements of a set

  // kProducts:
  PageNorms norms;
  ExactPages exact;
  uint32_t* near = nullptr;        // scratch, one a pair of the items
  uint32_t* near_count = nullptr;  // scratch
  uint64_t* partners = nullptr;    // [pages, partner_count] partner_key() by centred cosine, or null
  int32_t partner_count = 0;
  const int32_t* heat_bin = nullptr;  // of each page; null: no heatmap of the centred cosine
  int32_t heat_bins = 0;
  uint64_t* heat_sums = nullptr;  // [heat_bins, heat_bins], in units of 1 / kFixedOne
  uint64_t* heat_counts = nullptr;
};

}  // namespace kva
