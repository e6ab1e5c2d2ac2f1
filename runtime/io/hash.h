// Checksums of inputs and outputs: XXH3-128, printed as "xxh3:" and 32 hexadecimal digits.
#pragma once

#include <cstddef>
#include <span>
#include <string>
#include <string_view>

namespace kva {

std::string bytes_hash(std::span<const std::byte> bytes);
std::string text_hash(std::string_view text);

}  // namespace kva
