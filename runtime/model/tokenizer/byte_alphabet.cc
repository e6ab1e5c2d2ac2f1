#include "runtime/model/tokenizer/byte_alphabet.h"

#include "runtime/io/utf8.h"

namespace kva::tok {
namespace {

constexpr uint32_t kAlphabetEnd = 0x100 + 68;  // 68 bytes have no printable character of their own

}  // namespace

bool ByteAlphabet::to_bytes(std::string_view text, std::string& out) const {
  static const auto inverse = [this] {
    std::array<int16_t, kAlphabetEnd> table;
    table.fill(-1);
    for (std::size_t byte = 0; byte < 256; ++byte) table[code_points[byte]] = static_cast<int16_t>(byte);
    return table;
  }();
  out.clear();
  while (!text.empty()) {
    const CodePoint point = first_code_point(text);
    if (!point.valid || point.value >= kAlphabetEnd || inverse[point.value] < 0) return false;
    out += static_cast<char>(inverse[point.value]);
    text.remove_prefix(point.bytes);
  }
  return true;
}

std::string ByteAlphabet::to_text(std::string_view bytes) const {
  std::string out;
  for (const char byte : bytes) append_utf8(code_points[static_cast<uint8_t>(byte)], out);
  return out;
}

const ByteAlphabet& byte_alphabet() {
  static const ByteAlphabet alphabet = [] {
    ByteAlphabet made;
    uint32_t next = 0x100;
    for (uint32_t byte = 0; byte < 256; ++byte) {
      const bool printable =
          (byte >= '!' && byte <= '~') || (byte >= 0xA1 && byte <= 0xAC) || (byte >= 0xAE && byte <= 0xFF);
      made.code_points[byte] = printable ? byte : next++;
    }
    return made;
  }();
  return alphabet;
}

}  // namespace kva::tok
