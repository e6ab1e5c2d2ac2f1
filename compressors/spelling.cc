#include "compressors/spelling.h"

#include <fmt/format.h>

#include <algorithm>
#include <array>
#include <cstddef>
#include <limits>

namespace kva {
namespace {

constexpr std::size_t kLongestName = 40;  // longer texts are no typing errors

// Optimal string alignment distance by three rolling rows.
std::size_t edit_distance(std::string_view a, std::string_view b) {
  std::array<std::size_t, kLongestName + 1> before_last{}, last{}, row{};
  for (std::size_t j = 0; j <= b.size(); ++j) last[j] = j;
  for (std::size_t i = 1; i <= a.size(); ++i) {
    row[0] = i;
    for (std::size_t j = 1; j <= b.size(); ++j) {
      const std::size_t replaced = last[j - 1] + (a[i - 1] == b[j - 1] ? 0 : 1);
      row[j] = std::min({last[j] + 1, row[j - 1] + 1, replaced});
      if (i > 1 && j > 1 && a[i - 1] == b[j - 2] && a[i - 2] == b[j - 1])
        row[j] = std::min(row[j], before_last[j - 2] + 1);
    }
    before_last = last;
    last = row;
  }
  return last[b.size()];
}

}  // namespace

std::string lower_case(std::string_view text) {
  std::string lower(text);
  for (char& c : lower)
    if (c >= 'A' && c <= 'Z') c = static_cast<char>(c - 'A' + 'a');
  return lower;
}

std::string_view nearest_name(std::string_view text, std::span<const std::string_view> known) {
  if (text.size() > kLongestName) return {};
  std::string_view nearest;
  std::size_t least = std::numeric_limits<std::size_t>::max();
  for (const std::string_view name : known) {
    if (name.size() > kLongestName) continue;
    const std::size_t distance = edit_distance(text, name);
    // One slip for every three letters, and never a wholly different word.
    const std::size_t allowed = (std::max(text.size(), name.size()) + 2) / 3;
    if (distance <= allowed && distance < std::min(text.size(), name.size()) && distance < least) {
      least = distance;
      nearest = name;
    }
  }
  return nearest;
}

std::string suggestion(std::string_view text, std::span<const std::string_view> known) {
  const std::string_view nearest = nearest_name(text, known);
  return nearest.empty() ? "" : fmt::format("; did you mean {}?", nearest);
}

std::string listed(std::span<const std::string> names, std::string_view conjunction) {
  std::string text;
  for (std::size_t i = 0; i < names.size(); ++i) {
    if (i > 0) text += i + 1 < names.size() ? ", " : " " + std::string(conjunction) + " ";
    text += names[i];
  }
  return text;
}

}  // namespace kva
