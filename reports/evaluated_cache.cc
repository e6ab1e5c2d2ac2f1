#include "reports/evaluated_cache.h"

namespace kva {

EvaluatedCache::EvaluatedCache(const Recipe& recipe, const CacheSetup& setup)
    : decoder_(setup.decoder),
      cache_(Compressor::cache_options(
                 recipe, setup.decoder.cache_options(setup.page_tokens, DType::kF16, recipe.key_basis())),
             setup.pool),
      compressor_(recipe, cache_, setup.pool, setup.seed, setup.classes) {
  if (!compressor_.needs_sample()) return;
  const KeyBasis basis = cache_.options().key_basis;
  compressor_.fit(compressor_.wants_part_losses() ? setup.calibration.pages_with_losses(basis)
                                                  : setup.calibration.pages(basis));
}

void EvaluatedCache::begin(int64_t copies) {
  end();
  for (int64_t i = 0; i < copies; ++i) sequences_.push_back(cache_.add_sequence());
  if (mapped_) cache_.map_attention(sequence());
}

void EvaluatedCache::end() {
  for (const SequenceId sequence : sequences_) {
    compressor_.before_free(sequence);
    cache_.free_sequence(sequence);
  }
  sequences_.clear();
}

void EvaluatedCache::begin_prompt(std::span<const int32_t> prompt) {
  for (const SequenceId sequence : sequences_) compressor_.begin_prompt(sequence, tokens(), prompt);
}

void EvaluatedCache::end_prompt() {
  for (const SequenceId sequence : sequences_) compressor_.end_prompt(sequence);
}

void EvaluatedCache::step(std::span<const int32_t> tokens, std::span<const int64_t> logit_rows,
                          MatView<float> logits) {
  const auto count = static_cast<int64_t>(tokens.size());
  Batch batch;
  std::vector<int32_t> rows;
  for (const SequenceId sequence : sequences_) {
    batch.spans.push_back(
        {.sequence = sequence, .first_row = batch.rows(), .tokens = count, .start = cache_.tokens(sequence)});
    rows.insert(rows.end(), tokens.begin(), tokens.end());
  }
  decoder_.step(batch, rows, cache_, logit_rows, logits);
  compressor_.after_step(batch, rows);
}

}  // namespace kva
