#include "runtime/model/tokenizer/pattern.h"

#define PCRE2_CODE_UNIT_WIDTH 8
#include <fmt/format.h>
#include <pcre2.h>

#include "kernels/check.h"
#include "runtime/error.h"

namespace kva::tok {
namespace {

constexpr std::size_t kMaxPatternBytes = 64 << 10;
constexpr uint32_t kMatchLimit = 10'000'000;
constexpr uint32_t kHeapLimitKib = 64 << 10;
constexpr std::size_t kJitStackBytes = 8 << 20;

// Hugging Face's engine (Oniguruma) and PCRE2 mean different things by these; no published pattern of the
// supported families has them.
constexpr std::string_view kAmbiguousEscapes = "wWbBhHvVXRNQE";

// The pattern in PCRE2's words. PCRE2's \s also takes U+180E, which left Unicode's White_Space in 2014 and
// which Oniguruma does not take: the property says what is meant.
std::string translated(std::string_view pattern, const std::string& where) {
  const auto refuse = [&](std::string_view what) {
    throw InputError(fmt::format("{}: expected a regular expression without {}, found {} (not supported)",
                                 where, what, quoted_for_error(pattern)));
  };
  std::string out;
  for (std::size_t i = 0; i < pattern.size(); ++i) {
    if (pattern.substr(i).starts_with("&&")) refuse("&&");
    if (pattern[i] != '\\' || i + 1 == pattern.size()) {
      out += pattern[i];
      continue;
    }
    const char escaped = pattern[++i];
    if (kAmbiguousEscapes.find(escaped) != std::string_view::npos) refuse(fmt::format("\\{}", escaped));
    if (escaped == 's' || escaped == 'S') {
      out += escaped == 's' ? "\\p{White_Space}" : "\\P{White_Space}";
    } else {
      out += '\\';
      out += escaped;
    }
  }
  return out;
}

struct MatchState {
  pcre2_match_data* data = pcre2_match_data_create(1, nullptr);
  pcre2_match_context* context = pcre2_match_context_create(nullptr);
  pcre2_jit_stack* stack = pcre2_jit_stack_create(32 << 10, kJitStackBytes, nullptr);

  MatchState() {
    KVA_CHECK(data != nullptr && context != nullptr && stack != nullptr, "out of memory");
    pcre2_set_match_limit(context, kMatchLimit);
    pcre2_set_heap_limit(context, kHeapLimitKib);
    pcre2_jit_stack_assign(context, nullptr, stack);
  }
  MatchState(const MatchState&) = delete;
  MatchState& operator=(const MatchState&) = delete;
  ~MatchState() {
    pcre2_jit_stack_free(stack);
    pcre2_match_context_free(context);
    pcre2_match_data_free(data);
  }
};

std::string error_text(int error) {
  PCRE2_UCHAR buffer[160] = {};
  pcre2_get_error_message(error, buffer, sizeof buffer);
  return reinterpret_cast<const char*>(buffer);
}

}  // namespace

struct Pattern::Code {
  pcre2_code* code = nullptr;
  ~Code() { pcre2_code_free(code); }
};

Pattern Pattern::regex(std::string_view pattern, std::string where) {
  if (pattern.size() > kMaxPatternBytes)
    throw InputError(fmt::format("{}: expected a regular expression of at most {} bytes, found {}", where,
                                 kMaxPatternBytes, pattern.size()));
  // In Oniguruma ^ and $ stand at every line.
  constexpr uint32_t kOptions = PCRE2_UTF | PCRE2_UCP | PCRE2_MULTILINE | PCRE2_NEVER_BACKSLASH_C;
  const std::string text = translated(pattern, where);
  int error = 0;
  std::size_t offset = 0;
  auto made = std::make_shared<Code>();
  made->code = pcre2_compile(reinterpret_cast<PCRE2_SPTR>(text.data()), text.size(), kOptions, &error,
                             &offset, nullptr);
  if (made->code == nullptr)
    throw InputError(fmt::format("{}: expected a regular expression, found one with a mistake: {}", where,
                                 error_text(error)));
  // Without JIT (an architecture that lacks it, a hardened kernel) the interpreter does the same, slower.
  pcre2_jit_compile(made->code, PCRE2_JIT_COMPLETE);
  Pattern result;
  result.code_ = std::move(made);
  result.where_ = std::move(where);
  return result;
}

Pattern Pattern::literal(std::string text, const std::string& where) {
  if (text.empty())
    throw InputError(fmt::format("{}: expected a text to look for, found an empty one", where));
  Pattern result;
  result.literal_ = std::move(text);
  result.where_ = where;
  return result;
}

bool Pattern::find(std::string_view text, std::size_t from, Match& match) const {
  if (code_ == nullptr) {
    const std::size_t at = text.find(literal_, from);
    if (at == std::string_view::npos) return false;
    match = {at, at + literal_.size()};
    return true;
  }
  thread_local const MatchState state;
  const int found = pcre2_match(code_->code, reinterpret_cast<PCRE2_SPTR>(text.data()), text.size(), from,
                                PCRE2_NO_UTF_CHECK, state.data, state.context);
  if (found == PCRE2_ERROR_NOMATCH) return false;
  if (found < 0)
    throw InputError(fmt::format("{}: this regular expression failed on the text at byte {}: {}", where_,
                                 from, error_text(found)));
  const std::size_t* span = pcre2_get_ovector_pointer(state.data);
  if (span[0] > span[1] || span[0] < from)  // \K inside a lookaround
    throw InputError(fmt::format("{}: expected matches that move forwards, found one that does not", where_));
  match = {span[0], span[1]};
  return true;
}

}  // namespace kva::tok
