// The one list of methods, and names found in it.
#pragma once

#include <span>
#include <string_view>

#include "compressors/method.h"

namespace kva {

// Every method there is, in the order that help shows them.
std::span<const MethodInfo> methods();

// The method of that name or alias, in any case; null where there is none.
const MethodInfo* find_method(std::string_view name);

}  // namespace kva
