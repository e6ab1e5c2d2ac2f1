#include "kernels/sparse.h"

#include <algorithm>

namespace kva {
namespace {

// out(q, to[i]) += left(q, from[i]) * values[i] for kLeft rows, from row `first` on.
template <int kLeft>
void add_rows(MatView<const float> left, const SparseNumbers& numbers, const int32_t* from, const int32_t* to,
              int64_t first, MatView<float> out) {
  const float* of_left = left.row(first);
  float* of_out = out.row(first);
  for (int64_t i = 0; i < numbers.count; ++i)
    for (int q = 0; q < kLeft; ++q)
      of_out[q * out.stride + to[i]] += of_left[q * left.stride + from[i]] * numbers.values[i];
}

void add(MatView<const float> left, const SparseNumbers& numbers, const int32_t* from, const int32_t* to,
         MatView<float> out) {
  KVA_CHECK(left.rows == out.rows, "one row of results a row of factors");
  for (int64_t first = 0; first < out.rows;) {
    const int64_t count = std::min<int64_t>(out.rows - first, 4);
    if (count == 4) add_rows<4>(left, numbers, from, to, first, out);
    if (count == 3) add_rows<3>(left, numbers, from, to, first, out);
    if (count == 2) add_rows<2>(left, numbers, from, to, first, out);
    if (count == 1) add_rows<1>(left, numbers, from, to, first, out);
    first += count;
  }
}

}  // namespace

void sparse_scores(MatView<const float> queries, const SparseNumbers& numbers, MatView<float> scores) {
  add(queries, numbers, numbers.channels, numbers.tokens, scores);
}

void sparse_accumulate(MatView<const float> weights, const SparseNumbers& numbers, MatView<float> out) {
  add(weights, numbers, numbers.tokens, numbers.channels, out);
}

}  // namespace kva
