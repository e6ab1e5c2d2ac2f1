// The definitions of DESIGN.md section 5 in double precision, one number at a time: the reference of the
// analysis tests.
#pragma once

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <numeric>
#include <vector>

#include "analyzer/redundancy/redundancy.h"
#include "kernels/convert.h"

namespace kva {

// [page][head][token * head_dim + channel], in the basis asked for.
using NaivePages = std::vector<std::vector<std::vector<double>>>;

inline NaivePages naive_pages(const PageSet& set, int layer, SideBasis side) {
  const bool key = side != SideBasis::kValue;
  const std::byte* stored = set.side_values(layer, key ? Side::kKey : Side::kValue);
  NaivePages pages(set.pages.size());
  const int64_t head_values = int64_t{set.page_tokens} * set.head_dim;
  for (std::size_t p = 0; p < pages.size(); ++p)
    for (int64_t h = 0; h < set.kv_heads; ++h) {
      std::vector<float> head(static_cast<std::size_t>(head_values));
      to_f32(stored + (static_cast<int64_t>(p) * set.kv_heads + h) * head_values * dtype_bytes(set.dtype),
             set.dtype, head.data(), head_values);
      if (key && set.rope) {
        const bool wants_rotated = side == SideBasis::kKeyRotated;
        for (int64_t t = 0; t < set.page_tokens; ++t) {
          const int64_t position = set.pages[p].start + t;
          const int64_t has = set.key_basis == KeyBasis::kRotated ? position
                              : set.key_basis == KeyBasis::kPlain ? 0
                                                                  : t;
          set.rope->rotate(head.data() + t * set.head_dim, (wants_rotated ? position : 0) - has);
        }
      }
      pages[p].emplace_back(head.begin(), head.end());
    }
  return pages;
}

inline std::vector<std::vector<double>> naive_means(const NaivePages& pages, int64_t head_dim) {
  std::vector<std::vector<double>> means(pages[0].size(),
                                         std::vector<double>(static_cast<std::size_t>(head_dim)));
  for (std::size_t h = 0; h < means.size(); ++h) {
    double tokens = 0;
    for (const auto& page : pages) {
      for (std::size_t k = 0; k < page[h].size(); ++k)
        means[h][k % static_cast<std::size_t>(head_dim)] += page[h][k];
      tokens += static_cast<double>(page[h].size()) / static_cast<double>(head_dim);
    }
    for (double& mean : means[h]) mean /= tokens;
  }
  return means;
}

inline std::vector<double> naive_join(const std::vector<std::vector<double>>& page, int head) {
  if (head != kJoinedHeads) return page[static_cast<std::size_t>(head)];
  std::vector<double> joined;
  for (const auto& part : page) joined.insert(joined.end(), part.begin(), part.end());
  return joined;
}

inline double naive_dot(const std::vector<double>& x, const std::vector<double>& y) {
  return std::inner_product(x.begin(), x.end(), y.begin(), 0.0);
}

inline double naive_cosine(const std::vector<double>& x, const std::vector<double>& y) {
  const double norms = std::sqrt(naive_dot(x, x)) * std::sqrt(naive_dot(y, y));
  return norms > 0.0 ? naive_dot(x, y) / norms : 0.0;
}

inline std::vector<std::size_t> naive_top(const std::vector<double>& x) {
  std::vector<std::size_t> order(x.size());
  std::iota(order.begin(), order.end(), 0);
  std::stable_sort(order.begin(), order.end(),
                   [&](auto a, auto b) { return std::abs(x[a]) > std::abs(x[b]); });
  order.resize(static_cast<std::size_t>(std::max(1.0, std::round(static_cast<double>(x.size()) * 0.25))));
  std::sort(order.begin(), order.end());
  return order;
}

// x, y: the pages; x_centred, y_centred: less the channel means.
inline double naive_similarity(Metric metric, const std::vector<double>& x, const std::vector<double>& y,
                               const std::vector<double>& x_centred, const std::vector<double>& y_centred) {
  switch (metric) {
    case Metric::kCosine: return naive_cosine(x, y);
    case Metric::kCosineCentered: return naive_cosine(x_centred, y_centred);
    case Metric::kL2: {
      double squared = 0.0;
      for (std::size_t k = 0; k < x.size(); ++k) squared += (x[k] - y[k]) * (x[k] - y[k]);
      const double larger = std::sqrt(std::max(naive_dot(x, x), naive_dot(y, y)));
      return larger > 0.0 ? 1.0 - std::sqrt(squared) / larger : 1.0;
    }
    case Metric::kHamming: {
      double differing = 0.0;
      for (std::size_t k = 0; k < x.size(); ++k) differing += (x_centred[k] > 0.0) != (y_centred[k] > 0.0);
      return 1.0 - differing / static_cast<double>(x.size());
    }
    case Metric::kJaccard: {
      const auto a = naive_top(x);
      const auto b = naive_top(y);
      std::vector<std::size_t> common;
      std::set_intersection(a.begin(), a.end(), b.begin(), b.end(), std::back_inserter(common));
      return static_cast<double>(common.size()) / static_cast<double>(a.size() + b.size() - common.size());
    }
  }
  return 0.0;
}

// One layer and side in one scope.
class NaiveScope {
 public:
  NaiveScope(const PageSet& set, int layer, SideBasis side, int head) {
    NaivePages pages = naive_pages(set, layer, side);
    const auto means = naive_means(pages, set.head_dim);
    for (auto& page : pages) {
      plain_.push_back(naive_join(page, head));
      for (std::size_t h = 0; h < page.size(); ++h)
        for (std::size_t k = 0; k < page[h].size(); ++k) page[h][k] -= means[h][k % means[h].size()];
      centred_.push_back(naive_join(page, head));
    }
  }

  double similarity(Metric metric, std::size_t i, std::size_t j) const {
    return against(metric, i, *this, j);
  }
  double against(Metric metric, std::size_t i, const NaiveScope& other, std::size_t j) const {
    return naive_similarity(metric, plain_[i], other.plain_[j], centred_[i], other.centred_[j]);
  }

 private:
  std::vector<std::vector<double>> plain_, centred_;
};

}  // namespace kva
