#include "runtime/model/token_class.h"

#include <utf8proc.h>

#include <algorithm>

#include "runtime/io/utf8.h"
#include "runtime/model/tokenizer.h"

namespace kva {
namespace {

bool is_space(utf8proc_int32_t point) {
  const utf8proc_category_t category = utf8proc_category(point);
  return category == UTF8PROC_CATEGORY_ZS || category == UTF8PROC_CATEGORY_ZL ||
         category == UTF8PROC_CATEGORY_ZP || (point >= '\t' && point <= '\r') || point == 0x85;
}

bool is_punctuation(utf8proc_int32_t point) {
  const utf8proc_category_t category = utf8proc_category(point);
  return (category >= UTF8PROC_CATEGORY_PC && category <= UTF8PROC_CATEGORY_PO) ||
         (category >= UTF8PROC_CATEGORY_SM && category <= UTF8PROC_CATEGORY_SO);
}

}  // namespace

std::string_view token_class_name(TokenClass of) {
  switch (of) {
    case TokenClass::kSpecial: return "special";
    case TokenClass::kPunctuation: return "punctuation";
    case TokenClass::kSpace: return "space";
    case TokenClass::kWord: return "word";
  }
  return "?";
}

TokenClass text_class(std::string_view text) {
  bool marks = false;
  while (!text.empty()) {
    const CodePoint point = first_code_point(text);
    text.remove_prefix(point.bytes);
    if (!point.valid) return TokenClass::kWord;
    const auto value = static_cast<utf8proc_int32_t>(point.value);
    if (is_space(value)) continue;
    if (!is_punctuation(value)) return TokenClass::kWord;
    marks = true;
  }
  return marks ? TokenClass::kPunctuation : TokenClass::kSpace;
}

TokenClasses::TokenClasses(const Tokenizer& tokenizer) {
  of_ids_.reserve(static_cast<std::size_t>(tokenizer.vocab_size()));
  for (int32_t id = 0; id < tokenizer.vocab_size(); ++id)
    of_ids_.push_back(tokenizer.is_special(id) ? TokenClass::kSpecial
                                               : text_class(tokenizer.token_bytes(id)));
}

int64_t TokenClasses::count(TokenClass of) const { return std::count(of_ids_.begin(), of_ids_.end(), of); }

}  // namespace kva
