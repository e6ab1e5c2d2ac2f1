#include "compressors/scale_parameters.h"

namespace kva {

ParameterInfo bits_parameter(std::string_view fallback, std::string_view help) {
  return {.name = "bits",
          .kind = ParameterKind::kInteger,
          .fallback = fallback,
          .lower = 2,
          .upper = 8,
          .values = {2, 3, 4, 8},
          .unit = "bits",
          .help = help};
}

ParameterInfo axes_parameter(std::string_view fallback) {
  return {.name = "axes",
          .kind = ParameterKind::kWord,
          .fallback = fallback,
          .words = {{"token", {}, "one scale for each token and head"},
                    {"channel", {}, "one scale for each channel and group of tokens"},
                    {"kivi", {}, "keys by channel, values by token"}},
          .help = "which numbers share a scale"};
}

ParameterInfo outliers_parameter(std::string_view fallback) {
  return {.name = "outliers",
          .kind = ParameterKind::kNumber,
          .fallback = fallback,
          .lower = 0,
          .upper = 0.5,
          .help =
              "share of a page side's numbers kept as f16 with their place: those farthest from the mean of "
              "their group"};
}

ScaleAxis scale_axis(const Arguments& arguments, Side side) {
  const std::string_view axes = arguments.word("axes");
  const bool by_channel = axes == "channel" || (axes == "kivi" && side == Side::kKey);
  return by_channel ? ScaleAxis::kChannel : ScaleAxis::kToken;
}

}  // namespace kva
