// Methods that only tests of the recipe language know, with one parameter of each kind and rule.
#pragma once

#include <span>

#include "compressors/methods.h"

namespace kva {

// dense and quant as they are, then:
//   pair(start=0.5 (also merge_start_layer; a layer or a share), t=0.6 in [0, 1], keep= in (0, 1])
//   same(how=exact, near= in [-1, 1])   refuses near with exact
//   fold(by=near|far)                   of values only
//   plainly                             takes nothing
std::span<const MethodInfo> recipe_test_methods();

}  // namespace kva
