#include "runtime/model/tokenizer/utf8.h"

#include <fmt/format.h>

#include <cstring>

namespace kva::tok {
namespace {

constexpr std::string_view kReplacement = "\xEF\xBF\xBD";
constexpr uint32_t kAlphabetEnd = 0x100 + 68;  // 68 bytes have no printable character of their own

// What the lead byte says: the length of the sequence and the range of its second byte.
struct Lead {
  int bytes;
  uint8_t low;
  uint8_t high;
};

Lead lead_of(uint8_t byte) {
  if (byte < 0xC2 || byte > 0xF4) return {0, 0, 0};
  if (byte < 0xE0) return {2, 0x80, 0xBF};
  if (byte < 0xF0) return {3, uint8_t(byte == 0xE0 ? 0xA0 : 0x80), uint8_t(byte == 0xED ? 0x9F : 0xBF)};
  return {4, uint8_t(byte == 0xF0 ? 0x90 : 0x80), uint8_t(byte == 0xF4 ? 0x8F : 0xBF)};
}

bool eight_ascii(const char* text) {
  uint64_t word;
  std::memcpy(&word, text, sizeof word);
  return (word & 0x8080808080808080u) == 0;
}

}  // namespace

CodePoint first_code_point(std::string_view text) {
  const auto byte_at = [&](int i) { return static_cast<uint8_t>(text[static_cast<std::size_t>(i)]); };
  const uint8_t first = byte_at(0);
  if (first < 0x80) return {first, 1, true, false};
  const Lead lead = lead_of(first);
  if (lead.bytes == 0) return {0, 1, false, false};
  uint32_t value = first & (0xFFu >> (lead.bytes + 1));
  for (int i = 1; i < lead.bytes; ++i) {
    if (static_cast<std::size_t>(i) == text.size()) return {0, i, false, true};
    const uint8_t byte = byte_at(i);
    if (byte < (i == 1 ? lead.low : 0x80) || byte > (i == 1 ? lead.high : 0xBF)) return {0, i, false, false};
    value = (value << 6) | (byte & 0x3Fu);
  }
  return {value, lead.bytes, true, false};
}

bool is_valid_utf8(std::string_view text) {
  while (!text.empty()) {
    if (text.size() >= 8 && eight_ascii(text.data())) {
      text.remove_prefix(8);
      continue;
    }
    const CodePoint point = first_code_point(text);
    if (!point.valid) return false;
    text.remove_prefix(static_cast<std::size_t>(point.bytes));
  }
  return true;
}

std::string repair_utf8(std::string_view text) {
  if (is_valid_utf8(text)) return std::string(text);
  std::string out;
  out.reserve(text.size() + 16);
  while (!text.empty()) {
    const CodePoint point = first_code_point(text);
    const auto bytes = static_cast<std::size_t>(point.bytes);
    out += point.valid ? text.substr(0, bytes) : kReplacement;
    text.remove_prefix(bytes);
  }
  return out;
}

std::size_t finished_utf8(std::string_view text) {
  // An unfinished character is at most three bytes long.
  for (std::size_t back = 1; back <= 3 && back <= text.size(); ++back) {
    const std::string_view tail = text.substr(text.size() - back);
    if (first_code_point(tail).truncated) return text.size() - back;
  }
  return text.size();
}

void append_utf8(uint32_t code_point, std::string& out) {
  const auto push = [&](uint32_t byte) { out += static_cast<char>(byte); };
  if (code_point < 0x80) {
    push(code_point);
  } else if (code_point < 0x800) {
    push(0xC0 | (code_point >> 6));
    push(0x80 | (code_point & 0x3F));
  } else if (code_point < 0x10000) {
    push(0xE0 | (code_point >> 12));
    push(0x80 | ((code_point >> 6) & 0x3F));
    push(0x80 | (code_point & 0x3F));
  } else {
    push(0xF0 | (code_point >> 18));
    push(0x80 | ((code_point >> 12) & 0x3F));
    push(0x80 | ((code_point >> 6) & 0x3F));
    push(0x80 | (code_point & 0x3F));
  }
}

std::string quoted_for_error(std::string_view text) {
  constexpr std::size_t kShownBytes = 40;
  std::string shown = repair_utf8(text.substr(0, kShownBytes));
  for (char& c : shown)
    if (static_cast<unsigned char>(c) < 0x20 || c == 0x7F) c = ' ';
  return fmt::format("\"{}{}\"", shown, text.size() > kShownBytes ? "..." : "");
}

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
    text.remove_prefix(static_cast<std::size_t>(point.bytes));
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
