// Values of parameters between their text and Arguments: reading, range checks, and what errors and help say
// of them.
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <string_view>

#include "compressors/method.h"

namespace kva {

// The value that `text` (lower case) spells, or nullopt where the parameter does not take it.
std::optional<ArgumentValue> read_value(const ParameterInfo& parameter, std::string_view text);

// The shortest text that read_value() reads as the same value of the parameter.
std::string value_text(const ParameterInfo& parameter, const ArgumentValue& value);

// What the parameter takes: "2, 3, 4 or 8", "a number from 0 to 0.5", "token, channel, kivi or group".
std::string expected_values(const ParameterInfo& parameter);

// A whole number of digits alone; nullopt where it is none or over `most`.
std::optional<int64_t> read_whole_number(std::string_view text, int64_t most);

}  // namespace kva
