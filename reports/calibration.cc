#include "reports/calibration.h"

#include <fmt/format.h>

#include <algorithm>

#include "runtime/error.h"
#include "runtime/kv/capture.h"
#include "runtime/model/generator.h"

namespace kva {

Calibration::Calibration(Decoder& decoder, std::vector<int32_t> ids, int64_t context, int page_tokens,
                         ThreadPool& pool)
    : decoder_(decoder), ids_(std::move(ids)), context_(context), page_tokens_(page_tokens), pool_(pool) {}

const PageSet& Calibration::pages(KeyBasis basis) {
  if (const auto known = pages_.find(basis); known != pages_.end()) return known->second;
  if (static_cast<int64_t>(ids_.size()) < page_tokens_)
    throw InputError(
        fmt::format("--calibration: expected a text of at least a page of {} tokens, found {} tokens",
                    page_tokens_, ids_.size()));
  std::vector<std::vector<int32_t>> sequences;
  for (std::size_t at = 0; at < ids_.size(); at += static_cast<std::size_t>(context_)) {
    const std::size_t end = std::min(ids_.size(), at + static_cast<std::size_t>(context_));
    sequences.emplace_back(ids_.begin() + static_cast<std::ptrdiff_t>(at),
                           ids_.begin() + static_cast<std::ptrdiff_t>(end));
  }
  const KvCacheOptions options = decoder_.cache_options(page_tokens_, DType::kF16, basis);
  KvCache cache(options, pool_);
  MemoryCapture capture;
  capture.begin(options, DType::kF16);
  GenerateCallbacks callbacks;
  callbacks.on_finished = [&](std::size_t index, SequenceId sequence, const Generation&) {
    capture.add_prompt({.set = "calibration",
                        .name = fmt::to_string(index),
                        .tokens = cache.tokens(sequence),
                        .pages = cache.sealed_pages(sequence)},
                       cache, sequence);
  };
  generate(decoder_, cache, sequences, {}, callbacks);
  return pages_.emplace(basis, capture.pages()).first->second;
}

}  // namespace kva
