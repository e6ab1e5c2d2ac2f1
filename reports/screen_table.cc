#include "reports/screen_table.h"

#include <algorithm>

#include "reports/text_format.h"

namespace kva {
namespace {

constexpr std::size_t kGap = 2;
constexpr std::size_t kNarrowest = 18;  // of the first column

std::vector<std::size_t> widths_of(const Table& table) {
  std::vector<std::size_t> widths;
  for (std::size_t c = 0; c < table.columns.size(); ++c) {
    std::size_t width = columns_of(table.columns[c].name);
    for (const auto& row : table.rows) width = std::max(width, columns_of(row[c].text));
    widths.push_back(width);
  }
  return widths;
}

}  // namespace

void add_table(const Table& table, Screen& screen) {
  std::vector<std::size_t> widths = widths_of(table);
  std::size_t numbers = 0;
  for (std::size_t c = 1; c < widths.size(); ++c) numbers += widths[c] + kGap;
  const std::size_t room = screen.width() > numbers + 2 ? screen.width() - numbers - 2 : 0;
  widths[0] = std::min(widths[0], std::max(room, kNarrowest));
  const auto add_cells = [&](const auto& text_of, const char* style) {
    for (std::size_t c = 1; c < widths.size(); ++c) {
      const std::string& text = text_of(c);
      screen.add(std::string(kGap, ' ') +
                     (table.columns[c].numeric ? padded_left(text, widths[c]) : padded(text, widths[c])),
                 style);
    }
    screen.end();
  };
  screen.add("  " + padded(table.columns[0].name, widths[0]), kDim);
  add_cells([&](std::size_t c) -> const std::string& { return table.columns[c].name; }, kDim);
  for (std::size_t r = 0; r < table.rows.size(); ++r) {
    const auto& row = table.rows[r];
    const std::string name = one_line(row[0].text, 400);
    screen.add("  " + padded(name, widths[0]), r == 0 ? kPlain : kBold);
    if (columns_of(name) > widths[0]) {
      screen.end();
      screen.add(std::string(widths[0] + 2, ' '));
    }
    add_cells([&](std::size_t c) -> const std::string& { return row[c].text; }, kPlain);
  }
}

}  // namespace kva
