#include "runtime/io/utf8.h"

#include <fmt/format.h>

#include <cstring>

namespace kva {
namespace {

constexpr std::string_view kReplacement = "\xEF\xBF\xBD";

// What the lead byte says: the length of the sequence and the range of its second byte.
struct Lead {
  std::size_t bytes;
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
  const auto byte_at = [&](std::size_t i) { return static_cast<uint8_t>(text[i]); };
  const uint8_t first = byte_at(0);
  if (first < 0x80) return {first, 1, true, false};
  const Lead lead = lead_of(first);
  if (lead.bytes == 0) return {0, 1, false, false};
  uint32_t value = first & (0xFFu >> (lead.bytes + 1));
  for (std::size_t i = 1; i < lead.bytes; ++i) {
    if (i == text.size()) return {0, i, false, true};
    const uint8_t byte = byte_at(i);
    if (byte < (i == 1 ? lead.low : 0x80) || byte > (i == 1 ? lead.high : 0xBF)) return {0, i, false, false};
    value = (value << 6) | (byte & 0x3Fu);
  }
  return {value, lead.bytes, true, false};
}

std::optional<std::size_t> first_invalid_utf8(std::string_view text) {
  std::size_t at = 0;
  while (at < text.size()) {
    if (text.size() - at >= 8 && eight_ascii(text.data() + at)) {
      at += 8;
      continue;
    }
    const CodePoint point = first_code_point(text.substr(at));
    if (!point.valid) return at;
    at += point.bytes;
  }
  return std::nullopt;
}

std::string replace_invalid_utf8(std::string_view text) {
  std::string out;
  out.reserve(text.size());
  while (const auto invalid = first_invalid_utf8(text)) {
    out += text.substr(0, *invalid);
    out += kReplacement;
    text.remove_prefix(*invalid);
    text.remove_prefix(first_code_point(text).bytes);
  }
  return out.append(text);
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
  std::string shown = replace_invalid_utf8(text.substr(0, kShownBytes));
  for (char& c : shown)
    if (static_cast<unsigned char>(c) < 0x20 || c == 0x7F) c = ' ';
  return fmt::format("\"{}{}\"", shown, text.size() > kShownBytes ? "..." : "");
}

}  // namespace kva
