// The pages of one layer and side, ready for pair products: f32, centred on the channel means, with norms,
// packed signs and packed index sets of the largest magnitudes.
#pragma once

#include <cstdint>
#include <span>
#include <vector>

#include "analyzer/redundancy/redundancy.h"
#include "kernels/similarity.h"

namespace kva {

struct PageShape {
  int64_t pages = 0;
  int64_t heads = 0;
  int64_t tokens = 0;
  int64_t head_dim = 0;

  int64_t head_values() const { return tokens * head_dim; }
  int64_t page_values() const { return heads * head_values(); }
  int64_t channels() const { return heads * head_dim; }
};

PageShape shape_of(const PageSet& pages);

// Pages as numbers: value k of page p is values[p * page_values + k] * unit. `unit` is a power of two that
// brings the largest magnitude into [0.5, 1), so that f32 products can neither overflow nor lose the bulk.
struct RawPages {
  PageShape shape;
  std::vector<float> values;  // [pages, heads, tokens, head_dim]
  double unit = 1.0;
};

// Throws InputError naming layer, side and page where a value is NaN or infinite.
RawPages load_pages(const PageSet& pages, int layer, SideBasis side, ThreadPool& pool);

// One page in the basis asked for, divided by `unit`. values: [page_values]. Thread-safe.
void read_page(const PageSet& pages, int layer, SideBasis side, int64_t page, double unit, float* values);

// Pages made of the same tokens in another order (ControlOrders).
RawPages reorder_tokens(const RawPages& pages, std::span<const int64_t> order, ThreadPool& pool);

// Mean of each channel over all tokens, in units of the raw values. [heads * head_dim]
std::vector<float> channel_means(const RawPages& pages, ThreadPool& pool);

// Root of the mean square of each channel over all tokens, with `unit` applied. [heads * head_dim]
std::vector<double> channel_rms(const RawPages& pages, ThreadPool& pool);

// A page whose norm is not over kZeroNorm (in raw units: the largest magnitude of the layer is about 1), or
// whose centred norm is not over kZeroCentred of its norm, counts as a zero page: cosine similarity 0.
inline constexpr double kZeroNorm = 1e-30;
inline constexpr double kZeroCentred = 1e-6;

// Norms of all pages in one scope, in raw units.
struct ScopeNorms {
  std::vector<float> norm, inverse, centred_squared, centred_inverse, mean_dot;
  float mean_squared = 0.0f;
  float near = kNearlyEqual;
  std::vector<double> exact_norm, exact_centred;  // 0 for zero pages

  PageNorms view() const;
};

class PageMatrix {
 public:
  // Takes the raw pages over and centres them in place. `means` in raw units.
  PageMatrix(RawPages raw, std::span<const float> means, double jaccard_share, ThreadPool& pool);

  // From now on pages can be multiplied in bf16: keeps a rounded copy. Only where multiplies_bf16().
  void round_products(ThreadPool& pool);
  bool rounds_products() const { return !rounded_.empty(); }
  // Over all scopes: from the largest relative rounding r of a page that was measured, and d numbers a page.
  // By Cauchy-Schwarz a product moves by 2 r + r² + d 2^-24 (1 + r)² of ‖x'‖ ‖y'‖, which is `centred`; a
  // cosine by as much times the square of the largest ‖x'‖ / ‖x‖. Where the distance of two pages is small
  // beside them, all three similarities are computed from the pages themselves instead; of the others,
  // l2_similarity moves by `l2`. 0 without rounding.
  const ProductError& product_error() const { return product_error_; }
  // One head, rounded: [pages, values].
  MatView<const uint16_t> rounded(int head) const;

  const PageShape& shape() const { return shape_; }
  double unit() const { return unit_; }
  // Of each channel, which centring took away: [heads * head_dim], in raw units.
  std::span<const float> means() const { return means_; }
  // Centred pages, all heads, resp. one head: [pages, values].
  MatView<const float> centred() const;
  MatView<const float> centred(int head) const;
  // `head` may be kJoinedHeads.
  const ScopeNorms& norms(int head) const { return norms_[index(head)]; }
  const BitMatrix& top(int head) const { return top_[index(head)]; }
  const BitMatrix& signs(int head) const { return signs_[static_cast<std::size_t>(head)]; }  // single heads
  int64_t scope_values(int head) const {
    return head == kJoinedHeads ? shape_.page_values() : shape_.head_values();
  }
  int64_t top_size(int head) const;

  // One head of a page; numbers in raw units, or with the unit applied.
  CentredBlock block(int64_t page, int head, bool with_unit) const;

 private:
  std::size_t index(int head) const {
    return static_cast<std::size_t>(head == kJoinedHeads ? shape_.heads : head);
  }
  void pack_top(int64_t page);
  void centre(int64_t page);
  void measure(int64_t page);
  void bound_error(int head, const std::vector<double>& residuals);

  PageShape shape_;
  double unit_;
  double jaccard_share_;
  std::vector<float> values_;
  std::vector<float> means_;
  std::vector<ScopeNorms> norms_;  // of each head, then joined
  std::vector<BitMatrix> signs_;   // of each head
  std::vector<BitMatrix> top_;     // of each head, then joined
  std::vector<uint16_t> rounded_;  // the values in bf16, or empty
  ProductError product_error_;
};

// Exact similarities of two pages in one scope, from f64 products; x and y may be of different layers.
struct ExactSimilarity {
  float cosine = 0.0f;
  float centred = 0.0f;
  float l2 = 0.0f;
  double distance = 0.0;  // with `unit` applied
};
ExactSimilarity exact_similarity(const PageMatrix& x, int64_t i, const PageMatrix& y, int64_t j, int head);

}  // namespace kva
