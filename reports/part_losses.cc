#include "reports/part_losses.h"

#include <fmt/format.h>

#include <algorithm>

#include "analyzer/quality/distribution.h"
#include "compressors/part_probe.h"
#include "compressors/recipe.h"
#include "reports/evaluation.h"
#include "runtime/interrupt.h"
#include "runtime/kv/page_set.h"

namespace kva {
namespace {

constexpr int64_t kChunk = 64;

// Steps a cache through the text; score(first row, logits) gets those of the second half, a chunk at a time.
template <typename Score>
void step_through(std::span<const int32_t> text, EvaluatedCache& cache, int64_t vocab, Score score) {
  const auto tokens = static_cast<int64_t>(text.size()), scored_from = tokens / 2;
  std::vector<float> logits(static_cast<std::size_t>(kChunk * vocab));
  cache.begin();
  for (int64_t at = 0; at < tokens;) {
    throw_if_interrupted();
    const int64_t count = std::min(kChunk, (at < scored_from ? scored_from : tokens) - at);
    std::vector<int64_t> rows;
    for (int64_t t = 0; at >= scored_from && t < count; ++t) rows.push_back(t);
    const MatView<float> view(logits.data(), static_cast<int64_t>(rows.size()), vocab);
    cache.step(text.subspan(static_cast<std::size_t>(at), static_cast<std::size_t>(count)), rows, view);
    if (!rows.empty()) score(at - scored_from, view);
    at += count;
  }
  cache.end();
}

std::string part_recipe(int layer, Side side, KeyBasis basis) {
  return fmt::format("keys({}); layers({}) & side({}): {}", key_basis_name(basis), layer,
                     side == Side::kKey ? "k" : "v", kPartProbe);
}

}  // namespace

std::vector<double> measure_part_losses(std::span<const int32_t> text, KeyBasis basis,
                                        const CacheSetup& setup, Progress& progress) {
  text = text.first(std::min(text.size(), static_cast<std::size_t>(kPartLossTokens)));
  const auto tokens = static_cast<int64_t>(text.size()), scored = tokens - tokens / 2;
  if (tokens / 2 < setup.page_tokens) return {};
  const int64_t vocab = setup.decoder.config().vocab;
  std::vector<float> base(static_cast<std::size_t>(scored * vocab));
  EvaluatedCache dense(Recipe::parse(kBaseRecipe), setup);
  step_through(text, dense, vocab, [&](int64_t first, MatView<const float> logits) {
    std::copy_n(logits.data, logits.rows * vocab, base.data() + first * vocab);
  });

  const int layers = setup.decoder.config().layers;
  std::vector<double> losses;
  progress.stage("calibrate", int64_t{2} * layers * tokens, "tokens");
  for (int layer = 0; layer < layers; ++layer)
    for (const Side side : {Side::kKey, Side::kValue}) {
      EvaluatedCache coded(Recipe::parse(part_recipe(layer, side, basis)), setup);
      double kl = 0.0;
      step_through(text, coded, vocab, [&](int64_t first, MatView<const float> logits) {
        // Their targets do not matter to the divergence.
        const std::vector<int32_t> targets(static_cast<std::size_t>(logits.rows), 0);
        std::vector<TokenScore> scores(targets.size());
        BaseDistributions(MatView<const float>(base.data() + first * vocab, logits.rows, vocab), targets,
                          setup.pool)
            .compare(logits, scores, setup.pool);
        for (const TokenScore& score : scores) kl += score.kl;
      });
      losses.push_back(std::max(0.0, kl / static_cast<double>(scored)));
      progress.update(static_cast<int64_t>(losses.size()) * tokens);
    }
  progress.finish();
  return losses;
}

}  // namespace kva
