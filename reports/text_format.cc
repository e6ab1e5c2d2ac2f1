#include "reports/text_format.h"

#include <fmt/format.h>

#include <algorithm>
#include <array>
#include <cctype>
#include <cmath>

namespace kva {
namespace {

constexpr const char* kMissing = "–";

// The bytes of the UTF-8 character that starts with `lead`.
std::size_t character_bytes(unsigned char lead) {
  if (lead < 0x80) return 1;
  if (lead >= 0xF0) return 4;
  if (lead >= 0xE0) return 3;
  return lead >= 0xC0 ? 2 : 1;
}

// Marks that reorder or hide text (bidirectional controls, zero-width characters, line separators).
bool is_invisible(std::string_view character) {
  if (character.size() == 2) return character[0] == '\xC2' && static_cast<unsigned char>(character[1]) < 0xA0;
  if (character.size() != 3) return false;
  const auto second = static_cast<unsigned char>(character[1]);
  const auto third = static_cast<unsigned char>(character[2]);
  if (character[0] == '\xE2' && second == 0x80)
    return (third >= 0x8B && third <= 0x8F) || (third >= 0xA8 && third <= 0xAE);
  if (character[0] == '\xE2' && second == 0x81) return third >= 0xA0 && third <= 0xAF;
  return character == "\xEF\xBB\xBF";
}

constexpr std::string_view kBase64 = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";

std::array<int, 256> base64_values() {
  std::array<int, 256> values;
  values.fill(-1);
  for (std::size_t i = 0; i < kBase64.size(); ++i)
    values[static_cast<unsigned char>(kBase64[i])] = static_cast<int>(i);
  return values;
}

}  // namespace

std::string format_count(double value) {
  if (!std::isfinite(value)) return kMissing;
  std::string digits = fmt::format("{:.0f}", std::abs(value));
  for (std::size_t at = digits.size(); at > 3;) digits.insert(at -= 3, ",");
  return value <= -0.5 ? "-" + digits : digits;
}

std::string format_bytes(double bytes) {
  if (!std::isfinite(bytes)) return kMissing;
  constexpr std::array<const char*, 5> kUnits = {"B", "KiB", "MiB", "GiB", "TiB"};
  std::size_t unit = 0;
  double value = bytes;
  while (std::abs(value) >= 1024 && unit + 1 < kUnits.size()) {
    value /= 1024;
    ++unit;
  }
  if (unit == 0) return fmt::format("{:.0f} B", value);
  return fmt::format("{:.{}f} {}", value,
                     std::abs(value) < 10    ? 2
                     : std::abs(value) < 100 ? 1
                                             : 0,
                     kUnits[unit]);
}

std::string format_share(double share, int digits) {
  if (!std::isfinite(share)) return kMissing;
  const double percent = 100 * share;
  // A rare event must not read as an absent one.
  const double smallest = std::pow(10.0, -digits);
  if (percent > 0 && percent < smallest / 2) return fmt::format("<{:.{}f}%", smallest, digits);
  return format_number(percent, digits) + "%";
}

std::string format_number(double value, int digits) {
  if (!std::isfinite(value)) return kMissing;
  std::string text = fmt::format("{:.{}f}", value, digits);
  if (text.find_first_not_of("-0.") == std::string::npos && text[0] == '-') text.erase(0, 1);
  return text;
}

std::string format_significant(double value, int digits) {
  return std::isfinite(value) ? fmt::format("{:.{}g}", value, digits) : kMissing;
}

std::string format_change(double share) {
  if (!std::isfinite(share)) return kMissing;
  const std::string text = format_number(100 * share, 2);
  const bool zero = text.find_first_not_of("0.") == std::string::npos;
  return (share > 0 && !zero ? "+" : "") + text + "%";
}

std::string format_seconds(double seconds) {
  if (!std::isfinite(seconds)) return kMissing;
  if (seconds < 9.995) return fmt::format("{:.2f} s", seconds);
  if (seconds < 99.95) return fmt::format("{:.1f} s", seconds);
  const auto whole = static_cast<int64_t>(std::min(seconds, 1e12));
  if (whole < 3600) return fmt::format("{} min {} s", whole / 60, whole % 60);
  return fmt::format("{} h {} min", whole / 3600, whole % 3600 / 60);
}

std::string format_rate(double per_second) {
  if (!std::isfinite(per_second)) return kMissing;
  constexpr std::array<const char*, 5> kUnits = {"", " k", " M", " G", " T"};
  std::size_t unit = 0;
  double value = per_second;
  while (value >= 1000 && unit + 1 < kUnits.size()) {
    value /= 1000;
    ++unit;
  }
  return fmt::format("{:.{}f}{}", value, value < 10 ? 2 : value < 100 ? 1 : 0, kUnits[unit]);
}

std::string one_line(std::string_view text, std::size_t max_bytes) {
  std::string line;
  for (std::size_t at = 0; at < text.size();) {
    const std::size_t bytes =
        std::min(character_bytes(static_cast<unsigned char>(text[at])), text.size() - at);
    const std::string_view character = text.substr(at, bytes);
    if (line.size() + bytes > max_bytes) return line + "…";
    const auto lead = static_cast<unsigned char>(character[0]);
    line += lead < 0x20 || lead == 0x7F || is_invisible(character) ? std::string_view(" ") : character;
    at += bytes;
  }
  return line;
}

std::string escape_html(std::string_view text) {
  std::string escaped;
  for (const char c : text) {
    switch (c) {
      case '&': escaped += "&amp;"; break;
      case '<': escaped += "&lt;"; break;
      case '>': escaped += "&gt;"; break;
      case '"': escaped += "&quot;"; break;
      case '\'': escaped += "&#39;"; break;
      default: escaped += c;
    }
  }
  return escaped;
}

std::string escape_markdown(std::string_view text) {
  const std::string line = one_line(text, 2000);
  const auto is_word = [&](std::size_t at) {
    return at < line.size() && (std::isalnum(static_cast<unsigned char>(line[at])) != 0);
  };
  std::string escaped;
  for (std::size_t i = 0; i < line.size(); ++i) {
    const char c = line[i];
    switch (c) {
      case '&': escaped += "&amp;"; break;
      case '<': escaped += "&lt;"; break;
      case '>': escaped += "&gt;"; break;
      case '@': escaped += "&#64;"; break;  // no mention of a person
      case '_':
        if (i == 0 || !is_word(i - 1) || !is_word(i + 1)) escaped += '\\';
        escaped += c;
        break;
      case '\\':
      case '`':
      case '*':
      case '|':
      case '[':
      case ']':
      case '~':
        escaped += '\\';
        escaped += c;
        break;
      case ':':
        escaped += line.compare(i, 3, "://") == 0 ? "&#58;" : ":";
        break;  // no link out of an address
      case '.': escaped += i >= 3 && line.compare(i - 3, 3, "www") == 0 ? "&#46;" : "."; break;
      default: escaped += c;
    }
  }
  return escaped;
}

std::string quote_gnuplot(std::string_view text) {
  std::string quoted = "'";
  for (const char c : one_line(text)) quoted += c == '\'' ? std::string_view("''") : std::string_view(&c, 1);
  return quoted + "'";
}

std::string escape_script_json(std::string_view json) {
  std::string escaped;
  escaped.reserve(json.size() + json.size() / 64);
  for (std::size_t i = 0; i < json.size(); ++i) {
    const char c = json[i];
    const bool separator = json.substr(i, 2) == "\xE2\x80" && i + 2 < json.size() &&
                           (json[i + 2] == '\xA8' || json[i + 2] == '\xA9');
    if (separator) {
      escaped += json[i + 2] == '\xA8' ? "\\u2028" : "\\u2029";
      i += 2;
    } else if (c == '<' || c == '>' || c == '&') {
      escaped += fmt::format("\\u{:04x}", static_cast<unsigned>(c));
    } else {
      escaped += c;
    }
  }
  return escaped;
}

std::string base64_encode(std::string_view bytes) {
  std::string text;
  text.reserve((bytes.size() + 2) / 3 * 4);
  for (std::size_t i = 0; i < bytes.size(); i += 3) {
    const std::size_t count = std::min<std::size_t>(3, bytes.size() - i);
    unsigned word = 0;
    for (std::size_t j = 0; j < 3; ++j)
      word = word << 8 | (j < count ? static_cast<unsigned char>(bytes[i + j]) : 0U);
    for (std::size_t j = 0; j < 4; ++j) text += j <= count ? kBase64[word >> (18 - 6 * j) & 63] : '=';
  }
  return text;
}

bool base64_decode(std::string_view text, std::string& bytes) {
  static const std::array<int, 256> kValues = base64_values();
  bytes.clear();
  if (text.size() % 4 != 0) return false;
  std::size_t padding = 0;
  while (padding < 2 && padding < text.size() && text[text.size() - 1 - padding] == '=') ++padding;
  unsigned word = 0;
  for (std::size_t i = 0; i < text.size() - padding; ++i) {
    const int value = kValues[static_cast<unsigned char>(text[i])];
    if (value < 0) return false;
    word = word << 6 | static_cast<unsigned>(value);
    if (i % 4 != 0) bytes += static_cast<char>(word >> (6 - 2 * (i % 4)) & 255);
  }
  return padding == 0 || (word & ((1U << (2 * padding)) - 1)) == 0;
}

}  // namespace kva
