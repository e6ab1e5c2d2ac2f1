// UTF-8 at the edge: text from outside is checked once, then trusted.
#pragma once

#include <cstddef>
#include <cstdint>
#include <optional>
#include <string>
#include <string_view>

namespace kva {

// One code point of a text. Where the text is not well formed (RFC 3629), valid is false and bytes counts the
// ill-formed piece that one U+FFFD stands for; truncated says that more bytes could still make it valid.
struct CodePoint {
  uint32_t value = 0;
  std::size_t bytes = 1;
  bool valid = false;
  bool truncated = false;
};
CodePoint first_code_point(std::string_view text);  // of a text that is not empty

// Offset of the first byte that is not part of a well-formed UTF-8 sequence, if any.
std::optional<std::size_t> first_invalid_utf8(std::string_view text);

// Each ill-formed piece replaced with U+FFFD, as Python's errors="replace" does.
std::string replace_invalid_utf8(std::string_view text);

// How many bytes at the front of `text` no later byte can change: all but an unfinished last character.
std::size_t finished_utf8(std::string_view text);

void append_utf8(uint32_t code_point, std::string& out);

// A text as a line of error shows it: shortened, in quotes, without control characters.
std::string quoted_for_error(std::string_view text);

}  // namespace kva
