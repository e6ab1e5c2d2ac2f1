#include "analyzer/redundancy/layer_matrix.h"

#include <algorithm>
#include <cmath>

#include "analyzer/redundancy/page_matrix.h"
#include "kernels/check.h"
#include "runtime/interrupt.h"

namespace kva {
namespace {

// Sums are in units of 2^-32: order-free, and exact enough for 2^30 pages.
constexpr double kUnit = 4294967296.0;

class PageAcrossLayers {
 public:
  PageAcrossLayers(const PageSet& pages, SideBasis side, const std::vector<LayerCentre>& centres)
      : pages_(pages),
        side_(side),
        centres_(centres),
        shape_(shape_of(pages)),
        values_(centres.size() * static_cast<std::size_t>(shape_.page_values())),
        products_(centres.size() * centres.size()),
        sums_(products_.size()) {}

  void take(int64_t page) {
    for (std::size_t layer = 0; layer < centres_.size(); ++layer) read(page, layer);
    const int64_t layers = static_cast<int64_t>(centres_.size());
    const MatView<const float> rows(values_.data(), layers, shape_.page_values());
    dot_tile(rows, rows, MatView<float>(products_.data(), layers, layers));
    for (std::size_t k = 0; k < products_.size(); ++k)
      sums_[k] += std::llround(double{clamp_similarity(products_[k])} * kUnit);
  }

  const std::vector<int64_t>& sums() const { return sums_; }

 private:
  // Leaves the centred page with norm 1, or 0 for a zero page.
  void read(int64_t page, std::size_t layer) {
    float* values = values_.data() + layer * static_cast<std::size_t>(shape_.page_values());
    read_page(pages_, static_cast<int>(layer), side_, page, centres_[layer].unit, values);
    PairProducts own;
    for (int64_t h = 0; h < shape_.heads; ++h) {
      const float* means = centres_[layer].means.data() + h * shape_.head_dim;
      float* head = values + h * shape_.head_values();
      for (int64_t t = 0; t < shape_.tokens; ++t)
        for (int64_t c = 0; c < shape_.head_dim; ++c) head[t * shape_.head_dim + c] -= means[c];
      const CentredBlock block{head, means, shape_.tokens, shape_.head_dim, 1.0};
      const PairProducts products = pair_products(block, block);
      own.dot += products.dot;
      own.centred_dot += products.centred_dot;
    }
    const double centred = std::sqrt(own.centred_dot);
    const bool some = centred > std::max(kZeroNorm, kZeroCentred * std::sqrt(own.dot));
    const float inverse = some ? static_cast<float>(1.0 / centred) : 0.0f;
    for (int64_t k = 0; k < shape_.page_values(); ++k) values[k] *= inverse;
  }

  const PageSet& pages_;
  SideBasis side_;
  const std::vector<LayerCentre>& centres_;
  PageShape shape_;
  std::vector<float> values_;    // [layers, page_values]
  std::vector<float> products_;  // [layers, layers]
  std::vector<int64_t> sums_;
};

}  // namespace

std::vector<double> layer_matrix(const PageSet& pages, SideBasis side,
                                 const std::vector<LayerCentre>& centres, ThreadPool& pool) {
  KVA_CHECK(static_cast<int>(centres.size()) == pages.layers, "one centre a layer");
  std::vector<PageAcrossLayers> workers(static_cast<std::size_t>(pool.threads()),
                                        PageAcrossLayers(pages, side, centres));
  pool.parallel_for(pages.page_count(), [&](int64_t page, int worker) {
    throw_if_interrupted();
    workers[static_cast<std::size_t>(worker)].take(page);
  });
  std::vector<double> means(centres.size() * centres.size());
  for (const PageAcrossLayers& worker : workers)
    for (std::size_t k = 0; k < means.size(); ++k) means[k] += static_cast<double>(worker.sums()[k]);
  for (double& mean : means) mean /= kUnit * static_cast<double>(pages.page_count());
  return means;
}

}  // namespace kva
