// A calibration text's pages, as steps that learn from them read them.
#pragma once

#include <cstdint>
#include <span>
#include <vector>

#include "compressors/draft.h"
#include "kernels/views.h"
#include "runtime/kv/page_set.h"

namespace kva {

// The cells of one layer and side: what a codebook is learnt from, and for.
struct LayerSide {
  int layer = 0;
  Side side = Side::kKey;
  std::vector<int> kv_heads;  // ascending
};

// The cells by layer and side, in the order of side_index().
std::vector<LayerSide> layer_sides(std::span<const Cell> cells);

// rows: [page_tokens, head_dim] of one page, as the sample holds them.
void read_sample(const PageSet& sample, const Cell& cell, int64_t page, MatView<float> rows);

// The attention that each of the page's tokens received; null where it was not measured.
const float* sample_mass(const PageSet& sample, const Cell& cell, int64_t page);

}  // namespace kva
