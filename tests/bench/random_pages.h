// Vectors of 1,024 uniform random numbers as pages, for what is measured of the analysis.
#pragma once

#include <cstdint>
#include <utility>
#include <vector>

#include "analyzer/redundancy/grouping.h"
#include "analyzer/redundancy/page_matrix.h"
#include "kernels/onednn_product.h"
#include "kernels/random.h"
#include "runtime/kv/page_set.h"

namespace kva {

inline constexpr int kTokens = 16;
inline constexpr int kHeadDim = 64;
inline constexpr int64_t kNumbers = kTokens * kHeadDim;

// In [-1, 1).
inline std::vector<float> uniform_numbers(int64_t count) {
  std::vector<float> numbers(static_cast<std::size_t>(count));
  SplitMix64 random(1);
  for (float& number : numbers) number = static_cast<float>(2.0 * random.uniform() - 1.0);
  return numbers;
}

inline PageMatrix random_pages(int64_t pages, ThreadPool& pool) {
  RawPages raw{{pages, 1, kTokens, kHeadDim}, uniform_numbers(pages * kNumbers), 1.0};
  const std::vector<float> means = channel_means(raw, pool);
  return PageMatrix(std::move(raw), means, 0.25, pool);
}

// The same, to be multiplied in bf16 where the processor does that.
inline PageMatrix random_pages_in(DType type, int64_t pages, ThreadPool& pool) {
  PageMatrix matrix = random_pages(pages, pool);
  if (type == DType::kBF16 && multiplies_bf16()) matrix.round_products(pool);
  return matrix;
}

inline Grouping one_prompt(int64_t pages) {
  PageSet set;
  set.prompts.push_back({"bench", "bench", pages * kTokens, pages, 0});
  for (int64_t p = 0; p < pages; ++p) set.pages.push_back({0, p * kTokens});
  return group_pages(set);
}

}  // namespace kva
