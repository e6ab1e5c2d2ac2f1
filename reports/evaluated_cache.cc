#include "reports/evaluated_cache.h"

namespace kva {

EvaluatedCache::EvaluatedCache(const Recipe& recipe, const CacheSetup& setup)
    : decoder_(setup.decoder),
      cache_(Compressor::cache_options(
                 recipe, setup.decoder.cache_options(setup.page_tokens, DType::kF16, recipe.key_basis())),
             setup.pool),
      compressor_(recipe, cache_, setup.pool, setup.seed) {
  if (compressor_.needs_sample()) compressor_.fit(setup.calibration.pages(cache_.options().key_basis));
}

void EvaluatedCache::begin() {
  end();
  sequence_ = cache_.add_sequence();
}

void EvaluatedCache::end() {
  if (!sequence_) return;
  compressor_.before_free(*sequence_);
  cache_.free_sequence(*sequence_);
  sequence_.reset();
}

void EvaluatedCache::step(std::span<const int32_t> tokens, std::span<const int64_t> logit_rows,
                          MatView<float> logits) {
  const Batch batch{{{.sequence = *sequence_,
                      .first_row = 0,
                      .tokens = static_cast<int64_t>(tokens.size()),
                      .start = cache_.tokens(*sequence_)}}};
  decoder_.step(batch, tokens, cache_, logit_rows, logits);
  compressor_.after_step(batch, tokens);
}

}  // namespace kva
