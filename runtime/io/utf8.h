// UTF-8 at the edge: text from outside is checked once, then trusted.
#pragma once

#include <cstddef>
#include <optional>
#include <string>
#include <string_view>

namespace kva {

// Offset of the first byte that is not part of a well-formed UTF-8 sequence (RFC 3629), if any.
std::optional<std::size_t> first_invalid_utf8(std::string_view text);

// Each ill-formed piece replaced with U+FFFD, as Python's errors="replace" does.
std::string replace_invalid_utf8(std::string_view text);

}  // namespace kva
