// The same page seen in two layers, for every pair of layers.
#pragma once

#include <vector>

#include "analyzer/redundancy/redundancy.h"

namespace kva {

// What centres a layer's pages: channel means and unit, as PageMatrix has them.
struct LayerCentre {
  std::vector<float> means;
  double unit = 1.0;
};

// [layers, layers]: mean over all pages of cosine_centered(page in layer a, page in layer b), heads joined.
// Reads the pages again, page by page, so memory is O(layers * page + layers²).
std::vector<double> layer_matrix(const PageSet& pages, SideBasis side,
                                 const std::vector<LayerCentre>& centres, ThreadPool& pool);

}  // namespace kva
