#include "compressors/outline.h"

#include <fmt/format.h>

#include <memory>
#include <vector>

#include "compressors/draft.h"
#include "runtime/error.h"
#include "runtime/kv/device_attention.h"

namespace kva {
namespace {

// A page of zeros.
Draft blank_draft(const StepContext& context) {
  const KvCacheOptions& options = context.cache.options();
  Draft draft{.tokens = options.page_tokens, .kv_heads = options.kv_heads};
  draft.table_pages.resize(static_cast<std::size_t>(options.layers) *
                           static_cast<std::size_t>(options.kv_heads));
  for (const Cell& cell : context.cells) {
    DraftStream stream;
    stream.tokens = options.page_tokens;
    stream.width = options.head_dim;
    stream.rows.resize(static_cast<std::size_t>(stream.tokens * stream.width));
    stream.origin = cell;
    stream.cells = {cell};
    draft.streams.push_back(std::move(stream));
  }
  return draft;
}

// The sides that the draft would become, without payloads.
Plan sides_of(const Draft& draft, const KvCache& cache) {
  Plan plan;
  std::vector<int> places(draft.streams.size(), -1);
  for (const bool shared : {true, false})
    for (std::size_t i = 0; i < draft.streams.size(); ++i) {
      const DraftStream& stream = draft.streams[i];
      if (stream.shared != shared || stream.dropped()) continue;
      auto codec = codec_of(stream, cache);
      if (!codec) continue;
      places[i] = static_cast<int>(plan.sides.size());
      plan.sides.push_back({.codec = std::move(codec),
                            .lane = lane_of(stream),
                            .tokens = stream.tokens,
                            .width = stream.width,
                            .base = stream.base < 0 ? -1 : places[static_cast<std::size_t>(stream.base)]});
    }
  return plan;
}

}  // namespace

void expect_readable(const Statement& statement, const StepContext& context) {
  // Codecs are held by their steps.
  std::vector<std::unique_ptr<Step>> steps;
  Draft draft = blank_draft(context);
  const auto check = [&] {
    try {
      check_device_plan(sides_of(draft, context.cache), context.cache.options());
    } catch (const InputError& error) {
      throw InputError(fmt::format("{}: {}", statement.pipeline_text(), error.what()));
    }
  };
  const Trigger* trigger = nullptr;
  for (const RecipeStep& text : statement.pipeline) {
    if (trigger && !(*trigger == text.trigger)) {
      check();
      draft = blank_draft(context);  // what was stored is read back
    }
    trigger = &text.trigger;
    // Which pages and tokens are kept is no question of how they are.
    if (text.method->kind == MethodKind::kStructure) continue;
    steps.push_back(text.method->make(text.arguments));
    steps.back()->begin(context);
    steps.back()->outline(context, draft);
  }
  check();
}

}  // namespace kva
