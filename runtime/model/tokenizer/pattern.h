// Regular expressions over UTF-8 text, as pre-tokenizers use them (PCRE2 with UTF, UCP and its JIT compiler).
#pragma once

#include <cstddef>
#include <memory>
#include <string>
#include <string_view>

#include "runtime/io/utf8.h"

namespace kva::tok {

struct Match {
  std::size_t begin = 0;  // bytes
  std::size_t end = 0;
};

// Compiled once, then shared by threads. The text must be valid UTF-8.
class Pattern {
 public:
  // A regular expression. `where` names the file and the field in errors. Throws InputError for a pattern
  // that does not compile.
  static Pattern regex(std::string_view pattern, std::string where);
  // Exactly this text, which must not be empty (InputError).
  static Pattern literal(std::string text, const std::string& where);

  // The first match at or after `from` (at most text.size()); false where there is none. Throws InputError
  // where matching takes more steps or memory than an honest pattern needs.
  bool find(std::string_view text, std::size_t from, Match& match) const;

 private:
  struct Code;
  std::shared_ptr<const Code> code_;  // none for a literal
  std::string literal_;
  std::string where_;
};

// Calls f(begin, end, is_match) for each match and each stretch between matches, in order: together they are
// the whole text. A match may be empty.
template <typename F>
void for_each_span(const Pattern& pattern, std::string_view text, F f);

template <typename F>
void for_each_span(const Pattern& pattern, std::string_view text, F f) {
  std::size_t done = 0;  // everything before it was handed to f
  std::size_t from = 0;
  bool any = false;
  Match match;
  while (from <= text.size() && pattern.find(text, from, match)) {
    const bool empty = match.begin == match.end;
    if (!(empty && any && match.end == done)) {  // as usual, no empty match right behind another one
      if (match.begin > done) f(done, match.begin, false);
      f(match.begin, match.end, true);
      done = match.end;
      any = true;
    }
    from = match.end;
    if (empty) from += from < text.size() ? first_code_point(text.substr(from)).bytes : 1;
  }
  if (done < text.size()) f(done, text.size(), false);
}

}  // namespace kva::tok
