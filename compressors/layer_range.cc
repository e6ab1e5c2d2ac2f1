#include "compressors/layer_range.h"

#include <fmt/format.h>

#include "runtime/error.h"

namespace kva {

int first_layer(const Arguments& arguments, std::string_view parameter, int layers) {
  if (!arguments.is_count(parameter))
    return static_cast<int>(arguments.number(parameter) * static_cast<double>(layers));
  const int64_t layer = arguments.integer(parameter);
  if (layer >= layers)
    throw InputError(
        fmt::format("{}({}={}): expected a layer below {}, the model's depth, or a share such as 0.5",
                    arguments.method().name, parameter, layer, layers));
  return static_cast<int>(layer);
}

}  // namespace kva
