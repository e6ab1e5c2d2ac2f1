#include "reports/calibration.h"

#include <fmt/format.h>

#include <algorithm>
#include <memory>
#include <span>
#include <utility>

#include "reports/part_losses.h"
#include "reports/prompts.h"
#include "runtime/error.h"
#include "runtime/kv/capture.h"
#include "runtime/model/generator.h"

namespace kva {
namespace {

constexpr int64_t kGeneralContext = 2048;

// The attention that the tokens of full pages got, laid out as a sample holds it.
class AttentionMass {
 public:
  explicit AttentionMass(const KvCacheOptions& options)
      : page_tokens_(options.page_tokens),
        kv_heads_(options.kv_heads),
        by_layer_(
            std::make_shared<std::vector<std::vector<float>>>(static_cast<std::size_t>(options.layers))) {}

  void add(const KvCache& cache, SequenceId sequence) {
    for (std::size_t layer = 0; layer < by_layer_->size(); ++layer)
      for (int64_t page = 0; page < cache.sealed_pages(sequence); ++page)
        for (int head = 0; head < kv_heads_; ++head) {
          const auto of_page = cache.attention_mass(sequence, static_cast<int>(layer), head)
                                   .subspan(static_cast<std::size_t>(page * page_tokens_),
                                            static_cast<std::size_t>(page_tokens_));
          (*by_layer_)[layer].insert((*by_layer_)[layer].end(), of_page.begin(), of_page.end());
        }
  }

  PageSet added_to(PageSet pages) const {
    for (const std::vector<float>& of : *by_layer_) pages.attention_mass.push_back(of.data());
    // One owner keeps both the pages and the mass.
    pages.owner = std::make_shared<const std::pair<std::shared_ptr<const void>, std::shared_ptr<const void>>>(
        pages.owner, by_layer_);
    return pages;
  }

 private:
  int64_t page_tokens_;
  int kv_heads_;
  std::shared_ptr<std::vector<std::vector<float>>> by_layer_;  // [layer][pages, kv_heads, page_tokens]
};

}  // namespace

Calibration::Calibration(Decoder& decoder, std::vector<int32_t> ids, int64_t context, int page_tokens,
                         ThreadPool& pool, Progress& progress)
    : decoder_(decoder),
      ids_(std::move(ids)),
      context_(context),
      page_tokens_(page_tokens),
      pool_(pool),
      progress_(progress) {}

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
  AttentionMass mass(options);
  for (int layer = 0; layer < options.layers; ++layer)
    for (int head = 0; head < options.kv_heads; ++head) cache.observe(layer, head, {.attention_mass = true});
  GenerateCallbacks callbacks;
  callbacks.on_finished = [&](std::size_t index, SequenceId sequence, const Generation&) {
    capture.add_prompt({.set = "calibration",
                        .name = fmt::to_string(index),
                        .tokens = cache.tokens(sequence),
                        .pages = cache.sealed_pages(sequence)},
                       cache, sequence);
    mass.add(cache, sequence);
  };
  generate(decoder_, cache, sequences, {}, callbacks);
  return pages_.emplace(basis, mass.added_to(capture.pages())).first->second;
}

const PageSet& Calibration::pages_with_losses(KeyBasis basis) {
  (void)pages(basis);
  PageSet& known = pages_.at(basis);
  const auto one_sequence = std::min(ids_.size(), static_cast<std::size_t>(context_));
  if (known.part_losses.empty())
    known.part_losses = measure_part_losses(
        std::span(ids_).first(one_sequence), basis,
        {.decoder = decoder_, .calibration = *this, .page_tokens = page_tokens_, .seed = 0, .pool = pool_},
        progress_);
  return known;
}

Calibration general_calibration(Decoder& decoder, const Tokenizer& tokenizer, int page_tokens,
                                ThreadPool& pool, Progress& progress) {
  std::vector<int32_t> ids = tokenizer.encode(general_text());
  ids.resize(std::min(ids.size(), kCalibrationTokens));
  const int64_t context = std::min(kGeneralContext, decoder.config().usable_positions());
  return {decoder, std::move(ids), context, page_tokens, pool, progress};
}

}  // namespace kva
