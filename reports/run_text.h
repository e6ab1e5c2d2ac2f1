// The text that a run reads.
#pragma once

#include <string>

namespace kva {

// Of a UTF-8 file, or with an empty path the built-in general prompts (prompts.h). Throws InputError.
std::string text_or_general(const std::string& path);

}  // namespace kva
