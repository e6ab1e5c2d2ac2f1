// Similarity of pages, tile by tile: products, packed signs, packed index sets, and the running totals of the
// values. Pure computation on views; the policy (which pairs, which groups) is the analyzer's.
//
// CPU: similarity_cpu.cc (products, packing), similarity_simd_cpu.cc (SIMD with run-time dispatch). A
// device's: similarity_job.h, similarity_lanes.h. All functions are thread-safe.
#pragma once

#include <cstdint>
#include <span>
#include <vector>

#include "kernels/similarity_math.h"
#include "kernels/views.h"

namespace kva {

// --- Products
// -----------------------------------------------------------------------------------------------

// out(i, j) = a row i · b row j. a: [m, d], b: [n, d], out: [m, n], f32. Single-threaded inside a ThreadPool
// worker; the result depends on the shapes only.
void dot_tile(MatView<const float> a, MatView<const float> b, MatView<float> out);
// The same of bf16 numbers, summed in f32; only where multiplies_bf16() (kernels/onednn_product.h).
void dot_tile(MatView<const uint16_t> a, MatView<const uint16_t> b, MatView<float> out);

// A page of tokens x channels numbers, stored as differences from channel means: number (t, c) is
// (values[t * channels + c] + mean[c]) * unit.
struct CentredBlock {
  const float* values = nullptr;
  const float* mean = nullptr;  // [channels]
  int64_t tokens = 0;
  int64_t channels = 0;
  double unit = 1.0;
};

// Sums over two blocks of one shape, in f64.
struct PairProducts {
  double centred_dot = 0.0;       // of the stored differences
  double dot = 0.0;               // of the numbers
  double squared_distance = 0.0;  // of the numbers
};
PairProducts pair_products(const CentredBlock& x, const CentredBlock& y);

// --- Rows of similarities
// ------------------------------------------------------------------------------------

// What turns the product of two centred pages into similarities, for pages [0, n) of a side; x = x' + M with
// x' centred and M the channel means repeated for each token. The inverse of a zero norm is 0.
struct PageNorms {
  const float* norm = nullptr;             // ‖x‖
  const float* inverse = nullptr;          // 1 / ‖x‖
  const float* centred_squared = nullptr;  // ‖x'‖²
  const float* centred_inverse = nullptr;  // 1 / ‖x'‖
  const float* mean_dot = nullptr;         // x'·M
  float mean_squared = 0.0f;               // M·M
  float near = kNearlyEqual;               // for nearly_equal()
};

// Where to; all, or centred alone and the rest null.
struct ProductRow {
  float* cosine = nullptr;
  float* centred = nullptr;
  float* l2 = nullptr;
  float* distance = nullptr;
};

// Fills out[0, n) for page i against pages [first, first + n) from dots[j] = x'_i · x'_(first + j). Returns
// whether a pair is nearly_equal(), so that its distance has to be computed from the pages.
bool similarity_row(const float* dots, int64_t n, const PageNorms& norms, int64_t i, int64_t first,
                    const ProductRow& out);

// out[j] = hamming_similarity(counts[j], total), resp. jaccard_similarity(counts[j], size).
void hamming_row(const uint32_t* counts, int64_t n, int64_t total, float* out);
void jaccard_row(const uint32_t* counts, int64_t n, int64_t size, float* out);

// --- Packed bits
// ---------------------------------------------------------------------------------------------

// Bits of many pages, word-major so that neighbouring pages lie side by side: word w of page p is
// words[w * stride + p]; bit b of a page is bit b % 64 of its word b / 64. Bits past the last are 0.
class BitMatrix {
 public:
  BitMatrix() = default;
  BitMatrix(int64_t pages, int64_t bits);

  int64_t pages() const { return pages_; }
  int64_t bits() const { return bits_; }
  int64_t words() const { return words_; }
  int64_t stride() const { return stride_; }
  const uint64_t* data() const { return data_.data(); }
  uint64_t word(int64_t page, int64_t w) const { return data_[static_cast<std::size_t>(w * stride_ + page)]; }
  // Different pages may be set by different threads.
  void set_page(int64_t page, std::span<const uint64_t> words);

 private:
  int64_t pages_ = 0;
  int64_t bits_ = 0;
  int64_t words_ = 0;
  int64_t stride_ = 0;
  std::vector<uint64_t> data_;
};

constexpr int64_t bit_words(int64_t bits) { return (bits + 63) / 64; }

// Counts over bits for pages [row, row + counts.rows) against [column, column + counts.cols): bits that
// differ, resp. bits set in both.
void differing_bits_tile(const BitMatrix& bits, int64_t row, int64_t column, MatView<uint32_t> counts);
void common_bits_tile(const BitMatrix& bits, int64_t row, int64_t column, MatView<uint32_t> counts);
// The same for one pair, page i of x and page j of y.
uint32_t differing_bits(const BitMatrix& x, int64_t i, const BitMatrix& y, int64_t j);
uint32_t common_bits(const BitMatrix& x, int64_t i, const BitMatrix& y, int64_t j);

// Bit k = (values[k] > 0): the sign against the channel mean, for values that are differences from it.
void pack_signs(std::span<const float> values, std::span<uint64_t> words);

// How many of `count` indices a share of them is: at least 1, rounded to nearest.
int64_t top_set_size(int64_t count, double share);

// Sets the bits of the `size` largest magnitudes; of equal magnitudes the lower index first. Values are
// finite.
void pack_top_magnitudes(std::span<const float> values, int64_t size, std::span<uint64_t> words);

// --- Running totals
// ------------------------------------------------------------------------------------------

inline constexpr int kMaxThresholds = 8;
inline constexpr int32_t kHistogramBins = 4000;  // equal bins over [low, 1]

// Integers, a minimum and a maximum only: totals merge to the same result in any order.
struct ValueTotals {
  int64_t count = 0;
  int64_t sum = 0;  // of q = round(value * kFixedOne)
  // Sum of q², as squares_high * 2^24 + squares_low.
  int64_t squares_high = 0;
  int64_t squares_low = 0;
  int64_t over[kMaxThresholds] = {};  // values strictly over threshold k
  float min = 2.0f;
  float max = -2.0f;

  void merge(const ValueTotals& other);
  double mean() const;                // 0 where there is no value
  double standard_deviation() const;  // of the population
};

struct ValueRules {
  float low = -1.0f;  // of the histogram
  std::span<const float> thresholds;
};

// Adds values[0, n), all within [rules.low, 1], to the totals and, unless it is null, to the histogram of
// kHistogramBins bins; best[j] = max(best[j], values[j]) unless best is null. Returns the largest value, or
// -2 where n = 0.
float add_values(const float* values, int64_t n, const ValueRules& rules, ValueTotals& totals,
                 int64_t* histogram, float* best);

// The first j in [from, n) where values[j] is at least `least` or of_each[j]; n where there is none.
int64_t next_at_least(const float* values, const float* of_each, float least, int64_t from, int64_t n);

// Sum in f64.
double sum_values(const float* values, int64_t n);

}  // namespace kva
