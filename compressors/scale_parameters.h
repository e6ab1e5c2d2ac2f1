// The parameters that quantizing methods share: which numbers have a scale in common, and which are kept out.
#pragma once

#include <string_view>

#include "compressors/method.h"
#include "kernels/packed.h"
#include "runtime/kv/page_store.h"

namespace kva {

// "bits": 2, 3, 4 or 8.
ParameterInfo bits_parameter(std::string_view fallback, std::string_view help);
// "axes": token, channel or kivi.
ParameterInfo axes_parameter(std::string_view fallback);
// "outliers": a share of a page side's numbers.
ParameterInfo outliers_parameter(std::string_view fallback);

// What "axes" says of a side: a channel's numbers share a scale, or else a token's.
ScaleAxis scale_axis(const Arguments& arguments, Side side);

}  // namespace kva
