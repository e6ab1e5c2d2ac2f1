// The pages that a recipe's methods learn from (codebooks, say): a text of its own, decoded once for each key
// basis that asks. It is never the text that is scored.
#pragma once

#include <cstddef>
#include <cstdint>
#include <map>
#include <vector>

#include "kernels/parallel.h"
#include "reports/progress.h"
#include "runtime/kv/page_set.h"
#include "runtime/model/decoder.h"
#include "runtime/model/tokenizer.h"

namespace kva {

// Of a calibration text: as many tokens of its front are learnt from.
inline constexpr std::size_t kCalibrationTokens = 4096;

// Decoder, pool and progress outlive it. Used by one thread at a time.
class Calibration {
 public:
  // `ids` are cut into sequences of at most `context` tokens.
  Calibration(Decoder& decoder, std::vector<int32_t> ids, int64_t context, int page_tokens, ThreadPool& pool,
              Progress& progress);

  // Full pages in f16. Throws InputError where the text has not one page, Interrupted.
  const PageSet& pages(KeyBasis basis);
  // The same with part_losses (part_losses.h), where the text is long enough for them.
  const PageSet& pages_with_losses(KeyBasis basis);

 private:
  Decoder& decoder_;
  std::vector<int32_t> ids_;
  int64_t context_;
  int page_tokens_;
  ThreadPool& pool_;
  Progress& progress_;
  std::map<KeyBasis, PageSet> pages_;
};

// On the built-in general prompts, in sequences of at most 2,048 tokens, for runs that are given no text.
Calibration general_calibration(Decoder& decoder, const Tokenizer& tokenizer, int page_tokens,
                                ThreadPool& pool, Progress& progress);

}  // namespace kva
