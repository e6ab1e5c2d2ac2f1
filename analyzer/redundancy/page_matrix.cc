#include "analyzer/redundancy/page_matrix.h"

#include <algorithm>
#include <cmath>
#include <functional>
#include <limits>

#include "kernels/check.h"
#include "kernels/convert.h"
#include "kernels/onednn_product.h"

namespace kva {

PageNorms ScopeNorms::view() const {
  return {norm.data(),
          inverse.data(),
          centred_squared.data(),
          centred_inverse.data(),
          mean_dot.data(),
          mean_squared,
          near};
}

PageMatrix::PageMatrix(RawPages raw, std::span<const float> means, double jaccard_share, ThreadPool& pool)
    : shape_(raw.shape),
      unit_(raw.unit),
      jaccard_share_(jaccard_share),
      values_(std::move(raw.values)),
      means_(means.begin(), means.end()) {
  KVA_CHECK(static_cast<int64_t>(means_.size()) == shape_.channels(), "one mean a channel");
  const std::size_t pages = static_cast<std::size_t>(shape_.pages);
  norms_.resize(static_cast<std::size_t>(shape_.heads) + 1);
  for (ScopeNorms& norms : norms_) {
    for (auto* floats :
         {&norms.norm, &norms.inverse, &norms.centred_squared, &norms.centred_inverse, &norms.mean_dot})
      floats->resize(pages);
    norms.exact_norm.resize(pages);
    norms.exact_centred.resize(pages);
  }
  double joined = 0.0;
  for (int64_t h = 0; h < shape_.heads; ++h) {
    double squared = 0.0;
    for (int64_t c = 0; c < shape_.head_dim; ++c) {
      const double mean = means_[static_cast<std::size_t>(h * shape_.head_dim + c)];
      squared += mean * mean * static_cast<double>(shape_.tokens);
    }
    norms_[static_cast<std::size_t>(h)].mean_squared = static_cast<float>(squared);
    joined += squared;
    signs_.emplace_back(shape_.pages, shape_.head_values());
    top_.emplace_back(shape_.pages, shape_.head_values());
  }
  norms_.back().mean_squared = static_cast<float>(joined);
  top_.emplace_back(shape_.pages, shape_.page_values());
  pool.parallel_for(shape_.pages, [&](int64_t page, int) {
    pack_top(page);
    centre(page);
    measure(page);
  });
}

MatView<const float> PageMatrix::centred() const {
  return {values_.data(), shape_.pages, shape_.page_values()};
}

MatView<const float> PageMatrix::centred(int head) const {
  return centred().col_range(head * shape_.head_values(), shape_.head_values());
}

int64_t PageMatrix::top_size(int head) const { return top_set_size(scope_values(head), jaccard_share_); }

CentredBlock PageMatrix::block(int64_t page, int head, bool with_unit) const {
  return {centred(head).row(page), means_.data() + head * shape_.head_dim, shape_.tokens, shape_.head_dim,
          with_unit ? unit_ : 1.0};
}

// The index sets are of the numbers themselves, so they come before centring.
void PageMatrix::pack_top(int64_t page) {
  const std::span<const float> values(values_.data() + page * shape_.page_values(),
                                      static_cast<std::size_t>(shape_.page_values()));
  const auto pack = [&](int head, std::span<const float> part) {
    BitMatrix& top = top_[index(head)];
    std::vector<uint64_t> words(static_cast<std::size_t>(top.words()));
    pack_top_magnitudes(part, top_size(head), words);
    top.set_page(page, words);
  };
  const std::size_t head_values = static_cast<std::size_t>(shape_.head_values());
  for (int64_t h = 0; h < shape_.heads; ++h)
    pack(static_cast<int>(h), values.subspan(static_cast<std::size_t>(h) * head_values, head_values));
  pack(kJoinedHeads, values);
}

void PageMatrix::centre(int64_t page) {
  float* values = values_.data() + page * shape_.page_values();
  for (int64_t h = 0; h < shape_.heads; ++h) {
    const float* means = means_.data() + h * shape_.head_dim;
    for (int64_t t = 0; t < shape_.tokens; ++t, values += shape_.head_dim)
      for (int64_t c = 0; c < shape_.head_dim; ++c) values[c] -= means[c];
  }
}

void PageMatrix::measure(int64_t page) {
  const std::size_t p = static_cast<std::size_t>(page);
  PairProducts joined;
  const auto set = [&](int head, const PairProducts& products) {
    ScopeNorms& norms = norms_[index(head)];
    const double norm = std::sqrt(products.dot);
    const double centred = std::sqrt(products.centred_dot);
    norms.exact_norm[p] = norm > kZeroNorm ? norm : 0.0;
    norms.exact_centred[p] = centred > std::max(kZeroNorm, kZeroCentred * norm) ? centred : 0.0;
    norms.norm[p] = static_cast<float>(norms.exact_norm[p]);
    norms.inverse[p] = norms.exact_norm[p] > 0.0 ? static_cast<float>(1.0 / norm) : 0.0f;
    norms.centred_squared[p] = static_cast<float>(products.centred_dot);
    norms.centred_inverse[p] = norms.exact_centred[p] > 0.0 ? static_cast<float>(1.0 / centred) : 0.0f;
    // x = x' + M, so x·x = x'·x' + 2 x'·M + M·M.
    norms.mean_dot[p] =
        static_cast<float>((products.dot - products.centred_dot - double{norms.mean_squared}) / 2.0);
  };
  std::vector<uint64_t> words(static_cast<std::size_t>(bit_words(shape_.head_values())));
  for (int h = 0; h < shape_.heads; ++h) {
    const CentredBlock own = block(page, h, false);
    const PairProducts products = pair_products(own, own);
    joined.dot += products.dot;
    joined.centred_dot += products.centred_dot;
    set(h, products);
    pack_signs({own.values, static_cast<std::size_t>(shape_.head_values())}, words);
    signs_[static_cast<std::size_t>(h)].set_page(page, words);
  }
  set(kJoinedHeads, joined);
}

void ProductError::keep_larger(const ProductError& other) {
  cosine = std::max(cosine, other.cosine);
  centred = std::max(centred, other.centred);
  l2 = std::max(l2, other.l2);
}

MatView<const uint16_t> PageMatrix::rounded(int head) const {
  return MatView<const uint16_t>(rounded_.data(), shape_.pages, shape_.page_values())
      .col_range(head * shape_.head_values(), shape_.head_values());
}

void PageMatrix::round_products(ThreadPool& pool) {
  KVA_CHECK(multiplies_bf16(), "bf16 products where the processor has them");
  rounded_.resize(values_.size());
  // ‖x̂' - x'‖² of each page, by head.
  std::vector<std::vector<double>> residuals(static_cast<std::size_t>(shape_.heads),
                                             std::vector<double>(static_cast<std::size_t>(shape_.pages)));
  pool.parallel_for(shape_.pages, [&](int64_t page, int) {
    const float* values = values_.data() + page * shape_.page_values();
    uint16_t* rounded = rounded_.data() + page * shape_.page_values();
    thread_local std::vector<float> back;
    back.resize(static_cast<std::size_t>(shape_.page_values()));
    from_f32(values, DType::kBF16, rounded, shape_.page_values());
    to_f32(rounded, DType::kBF16, back.data(), shape_.page_values());
    for (int64_t h = 0; h < shape_.heads; ++h) {
      double sum = 0.0;
      for (int64_t k = h * shape_.head_values(); k < (h + 1) * shape_.head_values(); ++k) {
        const double residual = double{back[static_cast<std::size_t>(k)]} - values[k];
        sum += residual * residual;
      }
      residuals[static_cast<std::size_t>(h)][static_cast<std::size_t>(page)] = sum;
    }
  });
  std::vector<double> joined(static_cast<std::size_t>(shape_.pages));
  for (int64_t h = 0; h < shape_.heads; ++h) {
    const std::vector<double>& of_head = residuals[static_cast<std::size_t>(h)];
    std::transform(of_head.begin(), of_head.end(), joined.begin(), joined.begin(), std::plus<>());
    bound_error(static_cast<int>(h), of_head);
  }
  bound_error(kJoinedHeads, joined);
}

void PageMatrix::bound_error(int head, const std::vector<double>& residuals) {
  ScopeNorms& norms = norms_[index(head)];
  double rounding = 0.0;  // largest ‖x̂' - x'‖ / ‖x'‖
  double centring = 0.0;  // largest ‖x'‖ / ‖x‖
  double least_norm = std::numeric_limits<double>::infinity();
  bool zeros = false;
  for (std::size_t p = 0; p < residuals.size(); ++p) {
    const double centred = std::sqrt(double{norms.centred_squared[p]});
    if (centred > 0.0) rounding = std::max(rounding, std::sqrt(residuals[p]) / centred);
    zeros |= norms.exact_norm[p] == 0.0;
    if (norms.exact_norm[p] == 0.0) continue;
    centring = std::max(centring, centred / norms.exact_norm[p]);
    least_norm = std::min(least_norm, norms.exact_norm[p]);
  }
  // A page of zeros is the means' length away from them; as a cosine it is 0 whatever its product.
  double in_l2 = centring;
  if (zeros && least_norm < std::numeric_limits<double>::infinity())
    in_l2 = std::max(in_l2, std::sqrt(double{norms.mean_squared}) / least_norm);
  const double sums = static_cast<double>(scope_values(head)) * 0x1p-24;
  ProductError error;
  error.centred = 2 * rounding + rounding * rounding + sums * (1 + rounding) * (1 + rounding);
  error.cosine = error.centred * centring * centring;
  // Squared distances move by error.centred of ‖x'‖² + ‖y'‖² at most, so pairs at kNearlyEqual are found.
  const double near = double{kNearlyEqual} + error.centred;
  norms.near = static_cast<float>(near + error.centred);
  error.l2 = error.centred * std::sqrt(2.0) * in_l2 / (std::sqrt(near + error.centred) + std::sqrt(near));
  product_error_.keep_larger(error);
}

ExactSimilarity exact_similarity(const PageMatrix& x, int64_t i, const PageMatrix& y, int64_t j, int head) {
  PairProducts sum;
  const int first = head == kJoinedHeads ? 0 : head;
  const int last = head == kJoinedHeads ? static_cast<int>(x.shape().heads) : head + 1;
  for (int h = first; h < last; ++h) {
    const PairProducts products = pair_products(x.block(i, h, true), y.block(j, h, true));
    sum.centred_dot += products.centred_dot;
    sum.dot += products.dot;
    sum.squared_distance += products.squared_distance;
  }
  const auto cosine = [](double dot, double norm_x, double norm_y) {
    if (norm_x == 0.0 || norm_y == 0.0) return 0.0f;
    return clamp_similarity(static_cast<float>(dot / norm_x / norm_y));
  };
  const std::size_t a = static_cast<std::size_t>(i);
  const std::size_t b = static_cast<std::size_t>(j);
  const ScopeNorms& of_x = x.norms(head);
  const ScopeNorms& of_y = y.norms(head);
  const double norm_x = of_x.exact_norm[a] * x.unit();
  const double norm_y = of_y.exact_norm[b] * y.unit();
  const double larger = std::max(norm_x, norm_y);
  ExactSimilarity result;
  result.distance = std::sqrt(sum.squared_distance);
  result.cosine = cosine(sum.dot, norm_x, norm_y);
  result.centred = cosine(sum.centred_dot, of_x.exact_centred[a], of_y.exact_centred[b]);
  result.l2 = larger > 0.0 ? clamp_similarity(static_cast<float>(1.0 - result.distance / larger)) : 1.0f;
  return result;
}

}  // namespace kva
