// What attention over a compressed cache must be, from its pages as they read back.
#pragma once

#include <algorithm>
#include <cmath>
#include <limits>
#include <vector>

#include "tests/compressors/compressed_cache.h"

namespace kva {

// Attention of the sequence's last token in one layer, in double, from the pages as they read back.
inline std::vector<double> attention_of_stored(const CompressedCache& c, SequenceId id, int layer,
                                               const Projections& p) {
  const KvCache& cache = c.driver.cache;
  const int64_t dim = c.shape.head_dim;
  const Rope rope(c.shape.head_dim, c.shape.head_dim, 10000.0, {});
  const int64_t last = cache.tokens(id) - 1;
  std::vector<double> result;
  for (int head = 0; head < c.shape.heads(); ++head) {
    const int kv = head / c.shape.group;
    std::vector<float> query(p.q.begin() + (last * c.shape.heads() + head) * dim,
                             p.q.begin() + (last * c.shape.heads() + head + 1) * dim);
    const bool counts = c.recipe.positions() == PositionMode::kCacheRelative;
    const auto held = static_cast<int64_t>(c.positions(id, layer, kv).size());
    rope.rotate(query.data(), counts ? held - 1 : last);
    int64_t index = 0;
    std::vector<double> scores;
    std::vector<std::vector<float>> values;
    for (int64_t page = 0; page < cache.pages(id, layer, kv); ++page) {
      const PageFacts facts = cache.page({id, layer, kv, page, Side::kKey});
      std::vector<float> keys(static_cast<std::size_t>(facts.tokens * dim)), vals = keys;
      cache.read_page(id, layer, kv, page, Side::kKey, MatView<float>(keys.data(), facts.tokens, dim));
      cache.read_page(id, layer, kv, page, Side::kValue, MatView<float>(vals.data(), facts.tokens, dim));
      for (int64_t t = 0; t < facts.tokens; ++t) {
        float* key = keys.data() + t * dim;
        const auto at = static_cast<std::size_t>(t);
        const int64_t position = facts.contiguous ? facts.start + t : facts.positions[at];
        const bool hidden = !facts.contiguous && facts.biases[at] == -std::numeric_limits<float>::infinity();
        if (c.shape.basis == KeyBasis::kPlain) rope.rotate(key, counts ? index : position);
        index += hidden ? 0 : 1;
        if (c.shape.basis == KeyBasis::kPageRelative) rope.rotate(key, facts.start);
        double score = 0.0;
        for (int64_t i = 0; i < dim; ++i) score += double{query[static_cast<std::size_t>(i)]} * key[i];
        scores.push_back(score / std::sqrt(static_cast<double>(dim)) +
                         (facts.contiguous ? 0.0 : double{facts.biases[at]}));
        values.emplace_back(vals.data() + t * dim, vals.data() + (t + 1) * dim);
      }
    }
    const double most = *std::max_element(scores.begin(), scores.end());
    double sum = 0.0;
    std::vector<double> out(static_cast<std::size_t>(dim), 0.0);
    for (std::size_t t = 0; t < scores.size(); ++t) {
      const double weight = std::exp(scores[t] - most);
      sum += weight;
      for (std::size_t i = 0; i < out.size(); ++i) out[i] += weight * values[t][i];
    }
    for (const double value : out) result.push_back(value / sum);
  }
  return result;
}

}  // namespace kva
