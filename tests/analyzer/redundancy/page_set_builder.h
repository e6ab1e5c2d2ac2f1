// Page sets made of numbers chosen by a test.
#pragma once

#include <cmath>
#include <cstdint>
#include <functional>
#include <memory>
#include <string>
#include <vector>

#include "analyzer/redundancy/seeded.h"
#include "kernels/convert.h"
#include "runtime/kv/page_set.h"

namespace kva {

struct PageSetSpec {
  int layers = 1;
  int kv_heads = 1;
  int head_dim = 4;
  int page_tokens = 2;
  DType dtype = DType::kF32;
  KeyBasis key_basis = KeyBasis::kRotated;
  bool rope = false;
  // [set][prompt]: full pages.
  std::vector<std::vector<int64_t>> sets = {{4}};
};

// value(layer, side, page, head, token, channel), as stored.
using PageValue = std::function<float(int, Side, int64_t, int64_t, int64_t, int64_t)>;

inline PageSet build_page_set(const PageSetSpec& spec, const PageValue& value) {
  PageSet set;
  set.layers = spec.layers;
  set.kv_heads = spec.kv_heads;
  set.head_dim = spec.head_dim;
  set.page_tokens = spec.page_tokens;
  set.dtype = spec.dtype;
  set.key_basis = spec.key_basis;
  if (spec.rope) set.rope.emplace(spec.head_dim, spec.head_dim, 10000.0, RopeScaling());
  for (std::size_t s = 0; s < spec.sets.size(); ++s)
    for (std::size_t p = 0; p < spec.sets[s].size(); ++p) {
      const int64_t pages = spec.sets[s][p];
      const int prompt = static_cast<int>(set.prompts.size());
      set.prompts.push_back(
          {"set" + std::to_string(s), "prompt" + std::to_string(p), pages * spec.page_tokens, pages, 0});
      for (int64_t k = 0; k < pages; ++k) set.pages.push_back({prompt, k * spec.page_tokens});
    }
  auto bytes = std::make_shared<std::vector<std::vector<std::byte>>>();
  for (int layer = 0; layer < spec.layers; ++layer)
    for (const Side side : {Side::kKey, Side::kValue}) {
      std::vector<float> numbers;
      for (int64_t page = 0; page < set.page_count(); ++page)
        for (int64_t h = 0; h < spec.kv_heads; ++h)
          for (int64_t t = 0; t < spec.page_tokens; ++t)
            for (int64_t c = 0; c < spec.head_dim; ++c) numbers.push_back(value(layer, side, page, h, t, c));
      std::vector<std::byte> stored(numbers.size() * static_cast<std::size_t>(dtype_bytes(spec.dtype)));
      from_f32(numbers.data(), spec.dtype, stored.data(), static_cast<int64_t>(numbers.size()));
      bytes->push_back(std::move(stored));
    }
  for (const auto& side : *bytes) set.values.push_back(side.data());
  set.owner = bytes;
  return set;
}

// Numbers with channel means, page and token structure; some pages nearly repeat others.
inline PageValue textured_values(uint64_t seed) {
  return [seed](int layer, Side side, int64_t page, int64_t head, int64_t token, int64_t channel) {
    const auto noise = [&](uint64_t a, uint64_t b) {
      SeededRandom random(seed + a * 7919 + b, side_index(layer, side));
      return static_cast<float>(static_cast<double>(random.next() >> 11) / 9007199254740992.0 - 0.5);
    };
    const uint64_t place = static_cast<uint64_t>((head * 64 + token) * 1024 + channel);
    const float mean = 3.0f * noise(1, static_cast<uint64_t>(head * 1024 + channel));
    const float shared = noise(2 + static_cast<uint64_t>(page % 5), place);
    const float own = noise(1000 + static_cast<uint64_t>(page), place);
    return mean + shared + (page % 3 == 0 ? 0.05f : 0.8f) * own;
  };
}

}  // namespace kva
