// GPT-2's spelling of bytes: every byte has a printable character, its own where that is printable, else
// U+0100 and up in order.
#pragma once

#include <array>
#include <cstdint>
#include <string>
#include <string_view>

namespace kva::tok {

struct ByteAlphabet {
  std::array<uint32_t, 256> code_points;  // by byte
  // The bytes that `text` spells; false where a character is outside the alphabet (`out` is then undefined).
  bool to_bytes(std::string_view text, std::string& out) const;
  std::string to_text(std::string_view bytes) const;
};
const ByteAlphabet& byte_alphabet();

}  // namespace kva::tok
