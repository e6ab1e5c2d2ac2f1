// quant: whole numbers of a few bits with a scale for each group.

#include "compressors/method.h"

namespace kva {
namespace {

constexpr double kMostGroup = 1024;  // no page and no head is longer
constexpr int64_t kDenseBits = 16;   // k=16 leaves the keys as they are

// Queries can be turned by the same Hadamard matrix only where keys already carry their positions: the matrix
// and RoPE do not commute.
std::string check_quant(const Arguments& arguments, const StepPlace& place) {
  const bool keys =
      covers(place.sides, Side::kKey) && !(arguments.given("k") && arguments.integer("k") == kDenseBits);
  if (arguments.flag("rotate") && keys && place.key_basis == KeyBasis::kPlain)
    return "rotate=true cannot turn the keys of keys(plain), found both; use keys(rotated), k=16, side(v) or "
           "rotate=false";
  return "";
}

std::vector<ParameterInfo> quant_parameters() {
  using enum ParameterKind;
  return {
      {.name = "bits",
       .kind = kInteger,
       .fallback = "4",
       .lower = 2,
       .upper = 8,
       .values = {2, 3, 4, 8},
       .unit = "bits",
       .help = "width of a code, on both sides"},
      {.name = "k",
       .kind = kInteger,
       .lower = 2,
       .upper = 16,
       .values = {2, 3, 4, 8, 16},
       .unit = "bits",
       .help = "width for keys alone; 16 keeps them as dense(f16)"},
      {.name = "v",
       .kind = kInteger,
       .lower = 2,
       .upper = 16,
       .values = {2, 3, 4, 8, 16},
       .unit = "bits",
       .help = "width for values alone; 16 keeps them as dense(f16)"},
      {.name = "axes",
       .kind = kWord,
       .fallback = "token",
       .words = {{"token", {}, "one scale for each token and head"},
                 {"channel", {}, "one scale for each channel and group of tokens"},
                 {"kivi", {}, "keys by channel, values by token"},
                 {"group", {}, "one scale for each run of a token's values"}},
       .help = "which numbers share a scale"},
      {.name = "group",
       .kind = kInteger,
       .fallback = "page",
       .lower = 2,
       .upper = kMostGroup,
       .words = {{"page", {}, "as far as the page or the head goes"}, {"head", {}, "the channels of a head"}},
       .help = "numbers that share a scale: tokens where the scale is a channel's, else channels"},
      {.name = "symmetric", .kind = kFlag, .fallback = "false", .help = "no zero point: codes around 0"},
      {.name = "outliers",
       .kind = kNumber,
       .fallback = "0",
       .lower = 0,
       .upper = 0.5,
       .help = "share of a page side's numbers kept as f16 with their place: the largest residuals"},
      {.name = "dense_channels",
       .kind = kInteger,
       .fallback = "0",
       .lower = 0,
       .upper = kMostGroup,
       .unit = "channels",
       .help = "channels of each head kept as f16"},
      {.name = "rotate",
       .kind = kFlag,
       .fallback = "false",
       .help = "turn by a Hadamard matrix first; needs keys with their positions"},
      {.name = "norm_correct",
       .kind = kFlag,
       .fallback = "false",
       .help = "give each decoded token the length that it had"},
      {.name = "sinks",
       .kind = kInteger,
       .fallback = "0",
       .lower = 0,
       .upper = 65536,
       .unit = "tokens",
       .help = "first tokens of a sequence kept as f16"},
      {.name = "window",
       .kind = kInteger,
       .fallback = "0",
       .lower = 0,
       .upper = 1048576,
       .unit = "tokens",
       .help = "latest tokens of a sequence kept dense"},
  };
}

}  // namespace

MethodInfo quant_method() {
  return {
      .name = "quant",
      .meaning = "Codes of a few bits, with a scale for each group of numbers",
      .kind = MethodKind::kFormat,
      .papers = {{"KIVI: A Tuning-Free Asymmetric 2bit Quantization for KV Cache", "2402.02750"},
                 {"KVQuant: Towards 10 Million Context Length LLM Inference with KV Cache Quantization",
                  "2401.18079"},
                 {"QuaRot: Outlier-Free 4-Bit Inference in Rotated LLMs", "2404.00456"}},
      .parameters = quant_parameters(),
      .check = check_quant,
  };
}

}  // namespace kva
