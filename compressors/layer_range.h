// From which layer on a cross-layer method works: an index or a share of the depth.
#pragma once

#include <string_view>

#include "compressors/method.h"

namespace kva {

// The first layer that the count or share `parameter` names in a model of `layers`. Throws InputError where
// it is past the depth.
int first_layer(const Arguments& arguments, std::string_view parameter, int layers);

}  // namespace kva
