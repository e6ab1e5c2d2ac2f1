// UTF-8 in and out of the tokenizer: repair, whole characters, and the byte-level alphabet of GPT-2.
#pragma once

#include <array>
#include <cstddef>
#include <cstdint>
#include <string>
#include <string_view>

namespace kva::tok {

// One code point of `text` (not empty). bytes is how many it takes; where the text is no valid UTF-8 there,
// valid is false and bytes counts the ill-formed part that one U+FFFD stands for (Unicode, table 3-8, which
// is also what Rust and Python do). truncated says that more bytes could still make it valid.
struct CodePoint {
  uint32_t value = 0;
  int bytes = 1;
  bool valid = false;
  bool truncated = false;
};
CodePoint first_code_point(std::string_view text);

bool is_valid_utf8(std::string_view text);

// The text with every ill-formed part replaced by U+FFFD.
std::string repair_utf8(std::string_view text);

// How many bytes at the front of `text` no later byte can change: all but an unfinished last character.
std::size_t finished_utf8(std::string_view text);

void append_utf8(uint32_t code_point, std::string& out);

// A text as an error line shows it: shortened, in quotes, without control characters.
std::string quoted_for_error(std::string_view text);

// GPT-2's alphabet gives every byte a printable character: its own where that is printable, else U+0100 and
// up in order. code_points[byte] is that character.
struct ByteAlphabet {
  std::array<uint32_t, 256> code_points;
  // The bytes that `text` spells; false where a character is outside the alphabet (`out` is then undefined).
  bool to_bytes(std::string_view text, std::string& out) const;
  std::string to_text(std::string_view bytes) const;
};
const ByteAlphabet& byte_alphabet();

}  // namespace kva::tok
