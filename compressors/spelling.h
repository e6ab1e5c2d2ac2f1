// Names as people type them: nearest known names for errors, lists of names in sentences.
#pragma once

#include <span>
#include <string>
#include <string_view>

namespace kva {

// ASCII only; other bytes stay as they are.
std::string lower_case(std::string_view text);

// The known name with the fewest insertions, deletions, replacements and swaps of neighbours away from `text`
// (lower case); the first of several. Empty where none is near enough to be meant.
std::string_view nearest_name(std::string_view text, std::span<const std::string_view> known);

// For the end of an error: "; did you mean bits?", or nothing where no known name is near.
std::string suggestion(std::string_view text, std::span<const std::string_view> known);

// "a", "a or b", "a, b or c".
std::string listed(std::span<const std::string> names, std::string_view conjunction);

}  // namespace kva
