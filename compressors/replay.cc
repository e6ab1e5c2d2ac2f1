#include "compressors/replay.h"

#include <fmt/format.h>

#include <algorithm>

#include "compressors/step.h"
#include "kernels/check.h"
#include "kernels/convert.h"
#include "runtime/error.h"
#include "runtime/interrupt.h"
#include "runtime/kv/rebase.h"

namespace kva {
namespace {

constexpr int64_t kSampleTokens = 4096;

void refuse_what_captures_lack(const Recipe& recipe) {
  if (Compressor::shares_prefixes(recipe))
    throw InputError(
        "dedup(prefix): expected a method that works on pages, found one that compares token ids before "
        "pages "
        "are computed; a capture has none, use dedup(exact)");
  if (recipe.positions() == PositionMode::kCacheRelative)
    throw InputError(
        "keys(plain,cache-relative): expected positions of the text, found those of the cache, which "
        "attention "
        "gives; a capture has none, use keys(plain)");
  for (const Statement& statement : recipe.statements())
    for (const RecipeStep& step : statement.pipeline) {
      const auto made = step.method->make(step.arguments);
      if (made->observes().any())
        throw InputError(fmt::format(
            "{}: expected a method that works on pages, found one that ranks tokens by the attention "
            "they get; a capture has no queries, judge it with `kvanalyze ab`",
            step.text()));
      if (made->works_on_tables())
        throw InputError(
            fmt::format("{}: expected a method that works on pages, found one that drops tokens of a running "
                        "cache; judge it with `kvanalyze ab`",
                        step.text()));
    }
}

// Keys are handed over in the cache's basis, so it never turns any: it has no RoPE.
KvCacheOptions replay_options(const Recipe& recipe, const PageSet& pages) {
  KvCacheOptions options;
  options.layers = pages.layers;
  options.kv_heads = options.heads = pages.kv_heads;
  options.head_dim = pages.head_dim;
  options.page_tokens = pages.page_tokens;
  options.k_codec = options.v_codec = make_dense_codec(pages.dtype);
  options.scale = 1.0f;
  return Compressor::cache_options(recipe, options);
}

void turn_keys(const PageSet& pages, int64_t page, const Cell& cell, KeyBasis from, KeyBasis to,
               MatView<float> rows) {
  KVA_CHECK(rows.rows == pages.page_tokens && rows.cols == pages.head_dim && rows.stride == rows.cols,
            "rows for the page's tokens");
  if (cell.side == Side::kKey && pages.rope)
    rebase_keys(*pages.rope, from, to, pages.pages[static_cast<std::size_t>(page)].start, rows.rows, 1,
                rows.data);
}

// The first pages of the set, in the basis.
PageSet first_pages(const PageSet& pages, KeyBasis basis, int64_t most) {
  PageSet sample = pages;
  const auto count = std::min<std::size_t>(pages.pages.size(), static_cast<std::size_t>(most));
  sample.pages.resize(count);
  sample.attention_mass.clear();
  sample.key_basis = basis;
  if (basis == pages.key_basis || !pages.rope) return sample;
  const auto values = std::make_shared<std::vector<std::vector<float>>>();
  const int64_t head_values = int64_t{pages.page_tokens} * pages.head_dim;
  for (int layer = 0; layer < pages.layers; ++layer)
    for (const Side side : {Side::kKey, Side::kValue}) {
      std::vector<float>& all = values->emplace_back(count * static_cast<std::size_t>(pages.page_values()));
      float* target = all.data();
      for (std::size_t p = 0; p < count; ++p)
        for (int head = 0; head < pages.kv_heads; ++head, target += head_values)
          read_captured(pages, static_cast<int64_t>(p), {layer, head, side}, basis,
                        MatView<float>(target, pages.page_tokens, pages.head_dim));
    }
  sample.dtype = DType::kF32;
  sample.values.clear();
  for (const auto& side : *values) sample.values.push_back(reinterpret_cast<const std::byte*>(side.data()));
  sample.owner = values;
  return sample;
}

}  // namespace

void read_captured(const PageSet& pages, int64_t page, const Cell& cell, KeyBasis basis,
                   MatView<float> rows) {
  const int64_t count = int64_t{pages.page_tokens} * pages.head_dim;
  const int64_t first = (page * pages.kv_heads + cell.kv_head) * count;
  to_f32(pages.side_values(cell.layer, cell.side) + first * dtype_bytes(pages.dtype), pages.dtype, rows.data,
         count);
  turn_keys(pages, page, cell, pages.key_basis, basis, rows);
}

Replay::Replay(const Recipe& recipe, const PageSet& pages, ThreadPool& pool, uint64_t seed)
    : recipe_(recipe), pages_(pages), pool_(pool) {
  refuse_what_captures_lack(recipe);
  cache_ = std::make_unique<KvCache>(replay_options(recipe, pages), pool);
  compressor_ = std::make_unique<Compressor>(recipe, *cache_, pool, seed);
  int64_t first = 0;
  for (const CapturedPrompt& prompt : pages.prompts) {
    first_pages_.push_back(first);
    first += prompt.pages;
  }
}

Replay::~Replay() = default;

bool Replay::needs_sample() const { return compressor_->needs_sample(); }

void Replay::fit(const PageSet& sample) {
  const auto expect = [](const char* what, int64_t expected, int64_t found) {
    if (expected != found)
      throw InputError(
          fmt::format("--calibration: expected a capture with {} {}, found {}; capture the text with "
                      "the same model and options",
                      what, expected, found));
  };
  expect("layers:", pages_.layers, sample.layers);
  expect("KV heads:", pages_.kv_heads, sample.kv_heads);
  expect("numbers of a head:", pages_.head_dim, sample.head_dim);
  expect("tokens of a page:", pages_.page_tokens, sample.page_tokens);
  const int64_t most = std::max<int64_t>(1, kSampleTokens / pages_.page_tokens);
  compressor_->fit(first_pages(sample, cache_->options().key_basis, most));
}

void Replay::append_page(SequenceId sequence, int64_t page) {
  const int64_t tokens = pages_.page_tokens;
  const int64_t width = int64_t{pages_.kv_heads} * pages_.head_dim;
  const Batch batch{{{.sequence = sequence, .tokens = tokens, .start = cache_->tokens(sequence)}}};
  std::vector<std::vector<float>> rows(static_cast<std::size_t>(pages_.layers) * 2);
  // Heads are apart in a capture, and side by side in a row of the decoder.
  pool_.parallel_for(static_cast<int64_t>(rows.size()), [&](int64_t index, int) {
    const Side side = index % 2 == 0 ? Side::kKey : Side::kValue;
    std::vector<float> captured(static_cast<std::size_t>(tokens * pages_.head_dim));
    const MatView<float> view(captured.data(), tokens, pages_.head_dim);
    std::vector<float>& into = rows[static_cast<std::size_t>(index)];
    into.resize(static_cast<std::size_t>(tokens * width));
    for (int head = 0; head < pages_.kv_heads; ++head) {
      read_captured(pages_, page, {static_cast<int>(index / 2), head, side}, cache_->options().key_basis,
                    view);
      for (int64_t t = 0; t < tokens; ++t)
        std::copy_n(view.row(t), view.cols, into.data() + t * width + head * view.cols);
    }
  });
  for (int layer = 0; layer < pages_.layers; ++layer)
    cache_->append(layer, batch,
                   MatView<const float>(rows[side_index(layer, Side::kKey)].data(), tokens, width),
                   MatView<const float>(rows[side_index(layer, Side::kValue)].data(), tokens, width));
  cache_->end_step(batch);
  for (const auto& codec : {cache_->options().k_codec, cache_->options().v_codec})
    appended_bytes_ += codec->bytes(tokens, pages_.head_dim) * pages_.kv_heads * pages_.layers;
  compressor_->after_step(batch, {});
}

void Replay::run(const std::function<void(int64_t tokens)>& on_tokens) {
  int64_t done = 0;
  for (std::size_t p = 0; p < pages_.prompts.size(); ++p) {
    const CapturedPrompt& prompt = pages_.prompts[p];
    sequences_.push_back(cache_->add_sequence());
    const int64_t of_prompt = (prompt.tokens - prompt.generated) / pages_.page_tokens;
    for (int64_t page = 0; page <= prompt.pages; ++page) {
      throw_if_interrupted();
      if (page == std::min(of_prompt, prompt.pages)) compressor_->end_prompt(sequences_.back());
      if (page == prompt.pages) break;
      append_page(sequences_.back(), first_pages_[p] + page);
      on_tokens(done += pages_.page_tokens);
    }
  }
}

PageAddress Replay::address(int64_t page, const Cell& cell) const {
  const auto prompt = static_cast<std::size_t>(pages_.pages[static_cast<std::size_t>(page)].prompt);
  return {sequences_[prompt], cell.layer, cell.kv_head, page - first_pages_[prompt], cell.side};
}

void Replay::read_page(int64_t page, const Cell& cell, KeyBasis basis, MatView<float> rows) const {
  const PageAddress at = address(page, cell);
  cache_->read_page(at.sequence, at.layer, at.kv_head, at.page, at.side, rows);
  turn_keys(pages_, page, cell, stored_basis(), basis, rows);
}

}  // namespace kva
