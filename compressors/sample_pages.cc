#include "compressors/sample_pages.h"

#include <map>

#include "kernels/convert.h"

namespace kva {

std::vector<LayerSide> layer_sides(std::span<const Cell> cells) {
  std::map<std::size_t, LayerSide> found;
  for (const Cell& cell : cells) {
    LayerSide& of = found[side_index(cell.layer, cell.side)];
    of.layer = cell.layer;
    of.side = cell.side;
    of.kv_heads.push_back(cell.kv_head);
  }
  std::vector<LayerSide> list;
  list.reserve(found.size());
  for (auto& entry : found) list.push_back(std::move(entry.second));
  return list;
}

void read_sample(const PageSet& sample, const Cell& cell, int64_t page, MatView<float> rows) {
  const int64_t values = int64_t{sample.page_tokens} * sample.head_dim;
  KVA_CHECK(rows.rows == sample.page_tokens && rows.cols == sample.head_dim && rows.stride == rows.cols,
            "room for a page of the sample");
  const int64_t at = (page * sample.kv_heads + cell.kv_head) * values;
  to_f32(sample.side_values(cell.layer, cell.side) + at * dtype_bytes(sample.dtype), sample.dtype, rows.data,
         values);
}

const float* sample_mass(const PageSet& sample, const Cell& cell, int64_t page) {
  if (sample.attention_mass.empty()) return nullptr;
  return sample.attention_mass[static_cast<std::size_t>(cell.layer)] +
         (page * sample.kv_heads + cell.kv_head) * sample.page_tokens;
}

}  // namespace kva
