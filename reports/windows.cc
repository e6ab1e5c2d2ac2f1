#include "reports/windows.h"

#include <fmt/format.h>

#include <algorithm>

#include "runtime/error.h"

namespace kva {
namespace {

int64_t scored_of(const WindowOptions& options) { return options.context - options.context / 2; }

int64_t turn_tokens(const WindowOptions& options) {
  return (scored_of(options) + options.turns - 1) / options.turns;
}

void check(const WindowOptions& options) {
  const auto refuse = [](const char* option, const std::string& expected, int64_t found) {
    throw InputError(fmt::format("{}: expected {}, found {}", option, expected, found));
  };
  if (options.context < 2) refuse("--context", "at least 2 tokens", options.context);
  if (options.tokens < 0) refuse("--tokens", "a number of tokens, or 0 for all", options.tokens);
  if (options.chunk < 1 || options.chunk > options.context / 2)
    refuse("--chunk", fmt::format("1 to {} tokens, half of --context", options.context / 2), options.chunk);
  if (options.turns < 1 || options.turns > scored_of(options))
    refuse("--turns", fmt::format("1 to {} turns, a token each at least", scored_of(options)), options.turns);
}

// Where the window is cut whatever the chunk: after the context and after each turn.
std::vector<int64_t> turn_ends(const Window& window, const WindowOptions& options) {
  std::vector<int64_t> ends;
  for (int64_t end = window.first_scored; end < window.tokens; end += turn_tokens(options))
    ends.push_back(end);
  ends.push_back(window.tokens);
  return ends;
}

}  // namespace

std::vector<Window> plan_windows(int64_t text_tokens, const WindowOptions& options, const char* source) {
  check(options);
  const int64_t available = text_tokens / options.context;
  if (available == 0)
    throw InputError(
        fmt::format("{}: expected at least the {} tokens of one window, found {}; give a longer text or a "
                    "smaller --context",
                    source, options.context, text_tokens));
  const int64_t scored = scored_of(options);
  int64_t left = available * scored;
  if (options.tokens > 0) left = std::min(left, options.tokens);
  std::vector<Window> windows;
  for (int64_t first = 0; left > 0; first += options.context) {
    Window window;
    window.first_token = first;
    window.first_scored = options.context - scored;
    window.scored = std::min(scored, left);
    window.tokens = window.first_scored + window.scored;
    windows.push_back(window);
    left -= window.scored;
  }
  return windows;
}

std::vector<WindowStep> window_steps(const Window& window, const WindowOptions& options) {
  std::vector<WindowStep> steps;
  int64_t start = 0;
  for (const int64_t end : turn_ends(window, options)) {
    const int64_t begin = start;
    while (start < end) {
      WindowStep step;
      step.start = start;
      step.tokens = std::min(options.chunk, end - start);
      // Predictions stand at first_scored - 1 and after; the last token predicts nothing that is scored.
      const int64_t first = std::max(start, window.first_scored - 1);
      const int64_t last = std::min(start + step.tokens, window.tokens - 1);
      step.first_logit = std::min(first - start, step.tokens);
      step.logits = std::max<int64_t>(0, last - first);
      if (start == begin && end < window.tokens) step.prompt_tokens = end - begin;
      start += step.tokens;
      step.ends_turn = start == end && end < window.tokens;
      steps.push_back(step);
    }
  }
  return steps;
}

int64_t turn_of(int64_t index, const WindowOptions& options) { return index / turn_tokens(options); }

}  // namespace kva
