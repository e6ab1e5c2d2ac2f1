// Calibration texts made of random numbers.
#pragma once

#include <cmath>
#include <cstdint>
#include <functional>
#include <memory>
#include <numbers>
#include <vector>

#include "kernels/random.h"
#include "runtime/kv/page_set.h"
#include "tests/runtime/kv/cache_fixture.h"

namespace kva {

// Standard normal numbers, the same on every machine.
inline std::vector<float> normal_numbers(int64_t count, uint64_t seed) {
  SplitMix64 random(seed);
  std::vector<float> result(static_cast<std::size_t>(count));
  for (float& value : result) {
    const double radius = std::sqrt(-2.0 * std::log(1.0 - random.uniform()));
    value = static_cast<float>(radius * std::cos(2.0 * std::numbers::pi * random.uniform()));
  }
  return result;
}

// value(layer, side, page, head, token, channel)
using SampleValue = std::function<float(int, Side, int64_t, int64_t, int64_t, int64_t)>;

// A sample of the shape's cache.
inline PageSet make_sample(const CacheShape& shape, int64_t pages, const SampleValue& value) {
  PageSet sample;
  sample.layers = shape.layers;
  sample.kv_heads = shape.kv_heads;
  sample.head_dim = shape.head_dim;
  sample.page_tokens = shape.page_tokens;
  sample.dtype = DType::kF32;
  sample.key_basis = shape.basis;
  sample.prompts.push_back({"calibration", "text", pages * shape.page_tokens, pages, 0});
  for (int64_t page = 0; page < pages; ++page) sample.pages.push_back({0, page * shape.page_tokens});
  auto numbers = std::make_shared<std::vector<std::vector<float>>>();
  for (int layer = 0; layer < shape.layers; ++layer)
    for (const Side side : {Side::kKey, Side::kValue}) {
      std::vector<float>& of = numbers->emplace_back();
      for (int64_t page = 0; page < pages; ++page)
        for (int64_t head = 0; head < shape.kv_heads; ++head)
          for (int64_t t = 0; t < shape.page_tokens; ++t)
            for (int64_t c = 0; c < shape.head_dim; ++c) of.push_back(value(layer, side, page, head, t, c));
    }
  for (const std::vector<float>& of : *numbers)
    sample.values.push_back(reinterpret_cast<const std::byte*>(of.data()));
  sample.owner = numbers;
  return sample;
}

inline PageSet normal_sample(const CacheShape& shape, int64_t pages, uint64_t seed) {
  const int64_t count =
      int64_t{shape.layers} * 2 * pages * shape.kv_heads * shape.page_tokens * shape.head_dim;
  const std::vector<float> numbers = normal_numbers(count, seed);
  std::size_t at = 0;
  return make_sample(shape, pages,
                     [&](int, Side, int64_t, int64_t, int64_t, int64_t) { return numbers[at++]; });
}

}  // namespace kva
