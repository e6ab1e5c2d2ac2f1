// Lines for a terminal: styled pieces, counted in columns and cut at the width.
#pragma once

#include <cstddef>
#include <string>
#include <string_view>

namespace kva {

inline constexpr const char* kBold = "1";
inline constexpr const char* kDim = "2";
inline constexpr const char* kPlain = "";

// Columns that a UTF-8 text takes, one a character.
std::size_t columns_of(std::string_view text);
// With spaces behind it, or before it, up to so many columns.
std::string padded(const std::string& text, std::size_t columns);
std::string padded_left(const std::string& text, std::size_t columns);

class Screen {
 public:
  // 40 to 200 columns; `color` writes the styles as ANSI escapes.
  Screen(bool color, int width);

  // A piece of the current line; what is over the width is cut, with an ellipsis.
  void add(std::string_view text, const char* style = kPlain);
  void end();  // of the line
  void line(const std::string& label, const std::string& text);
  // An empty line and a bold one, with a dim note.
  void heading(const std::string& text, const std::string& note);

  std::size_t width() const { return width_; }
  std::string take() { return std::move(text_); }

 private:
  std::string text_;
  bool color_;
  std::size_t width_;
  std::size_t used_ = 0;
};

}  // namespace kva
