#include "reports/screen.h"

#include <fmt/format.h>

#include <algorithm>

namespace kva {

std::size_t columns_of(std::string_view text) {
  std::size_t count = 0;
  for (const char c : text) count += (static_cast<unsigned char>(c) & 0xC0) != 0x80 ? 1 : 0;
  return count;
}

std::string padded(const std::string& text, std::size_t columns) {
  const std::size_t have = columns_of(text);
  return have < columns ? text + std::string(columns - have, ' ') : text;
}

std::string padded_left(const std::string& text, std::size_t columns) {
  const std::size_t have = columns_of(text);
  return have < columns ? std::string(columns - have, ' ') + text : text;
}

Screen::Screen(bool color, int width)
    : color_(color), width_(static_cast<std::size_t>(std::clamp(width, 40, 200))) {}

void Screen::add(std::string_view text, const char* style) {
  std::string shown;
  for (std::size_t at = 0; at < text.size() && used_ < width_; ++used_) {
    const bool last = used_ + 1 == width_ && columns_of(text.substr(at)) > 1;
    std::size_t end = at + 1;
    while (end < text.size() && (static_cast<unsigned char>(text[end]) & 0xC0) == 0x80) ++end;
    shown += last ? std::string_view("…") : text.substr(at, end - at);
    at = end;
  }
  const bool styled = color_ && *style != '\0' && !shown.empty();
  text_ += styled ? fmt::format("\033[{}m{}\033[0m", style, shown) : shown;
}

void Screen::end() {
  const std::size_t last = text_.find_last_not_of(' ');
  text_.resize(last == std::string::npos ? 0 : last + 1);
  text_ += '\n';
  used_ = 0;
}

void Screen::line(const std::string& label, const std::string& text) {
  add(padded(label, 12), kBold);
  add(text);
  end();
}

void Screen::heading(const std::string& text, const std::string& note) {
  end();
  add(text, kBold);
  add(note.empty() ? "" : "  " + note, kDim);
  end();
}

}  // namespace kva
