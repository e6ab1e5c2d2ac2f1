// The characters of a recipe: names, values and signs, and errors that say where they stand.
#pragma once

#include <cstddef>
#include <string>
#include <string_view>

namespace kva {

// Reads a text from front to back, past blanks, line ends and comments. The text outlives the scanner. All
// errors are InputErrors of one line: "recipe, column 7: ...", with the line where there are several.
class RecipeScanner {
 public:
  // Refuses more than max_bytes and bytes that are not printable ASCII or white space.
  RecipeScanner(std::string_view text, std::size_t max_bytes);

  // Offset of the next token.
  std::size_t position();
  bool at_end();
  // Takes the character if it is next.
  bool accept(char c);
  bool next_is(char c);
  void expect(char c, const std::string& reason);

  // The next run of letters, digits and '_' that starts with a letter, in lower case.
  std::string name(const std::string& expected);
  // The next run of letters, digits and any of _.+-%, in lower case.
  std::string value(const std::string& expected);
  // The next digits, at most `most`.
  int64_t whole_number(int64_t most, const std::string& expected);

  // "column 7", or "line 2, column 7" in a text of several lines.
  std::string place(std::size_t position) const;
  [[noreturn]] void fail(std::size_t position, const std::string& message) const;
  // "expected ..., found <the next token>".
  [[noreturn]] void fail_expected(const std::string& expected);

 private:
  std::string_view run(std::string_view marks);

  std::string_view text_;
  std::size_t at_ = 0;
};

}  // namespace kva
