#include <algorithm>
#include <cmath>

#include "analyzer/redundancy/layer_pass.h"
#include "analyzer/redundancy/page_matrix.h"

namespace kva {
namespace {

double mean_token_norm(const RawPages& raw, ThreadPool& pool) {
  const PageShape& shape = raw.shape;
  std::vector<double> sums(static_cast<std::size_t>(shape.pages));
  pool.parallel_for(shape.pages, [&](int64_t page, int) {
    const float* values = raw.values.data() + page * shape.page_values();
    double sum = 0.0;
    for (int64_t k = 0; k < shape.heads * shape.tokens; ++k, values += shape.head_dim) {
      double squared = 0.0;
      for (int64_t c = 0; c < shape.head_dim; ++c) squared += double{values[c]} * double{values[c]};
      sum += std::sqrt(squared);
    }
    sums[static_cast<std::size_t>(page)] = sum;
  });
  double total = 0.0;
  for (const double sum : sums) total += sum;
  return total * raw.unit / static_cast<double>(shape.pages * shape.heads * shape.tokens);
}

int64_t outliers(std::vector<double> rms, double factor) {
  const std::vector<double> channels = rms;
  const auto middle = rms.begin() + static_cast<std::ptrdiff_t>((rms.size() - 1) / 2);
  std::nth_element(rms.begin(), middle, rms.end());
  const double limit = factor * *middle;
  return std::count_if(channels.begin(), channels.end(), [&](double value) { return value > limit; });
}

}  // namespace

void measure_norms(const RawPages& raw, bool keys, double outlier_factor, ThreadPool& pool, NormRow& row) {
  (keys ? row.k_norm : row.v_norm) = mean_token_norm(raw, pool);
  (keys ? row.k_outlier_channels : row.v_outlier_channels) = outliers(channel_rms(raw, pool), outlier_factor);
}

}  // namespace kva
