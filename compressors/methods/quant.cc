// quant: whole numbers of a few bits with a scale for each group.

#include <fmt/format.h>

#include <algorithm>
#include <map>

#include "compressors/codecs/front_dense_codec.h"
#include "compressors/codecs/hadamard_codec.h"
#include "compressors/codecs/quant_codec.h"
#include "compressors/method.h"
#include "compressors/scale_parameters.h"
#include "compressors/step.h"
#include "runtime/error.h"

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
  if (arguments.word("axes") == "group" && arguments.is_word("group"))
    return "axes=group expected a number of channels, as in group=32, found group=page";
  return "";
}

class QuantStep : public Step {
 public:
  explicit QuantStep(const Arguments& arguments)
      : rotate_(arguments.flag("rotate")),
        sinks_(arguments.integer("sinks")),
        window_(arguments.integer("window")),
        sides_{make_side(arguments, Side::kKey), make_side(arguments, Side::kValue)} {}

  int64_t window_tokens() const override { return window_; }
  bool reads_numbers() const override { return false; }

  void run(const StepContext&, Draft& draft) override {
    for (DraftStream& stream : draft.streams) {
      if (!stream.unformatted()) continue;
      SideFormat& side = sides_[stream.origin.side == Side::kKey ? 0 : 1];
      stream.format = side.codec;
      if (!side.packed) continue;
      if (const int64_t sinks = sinks_of(draft, stream); sinks > 0) stream.format = with_sinks(side, sinks);
      if (!rotate_) continue;
      if ((stream.width & (stream.width - 1)) != 0)
        throw InputError(fmt::format(
            "quant(rotate=true): expected tokens of a power of two of numbers, found {}; use rotate=false",
            stream.width));
      stream.wraps.push_back([&side](const std::shared_ptr<const SideCodec>& inner) {
        std::shared_ptr<const SideCodec>& rotated = side.rotated[inner.get()];
        if (!rotated) rotated = make_hadamard_codec(inner);
        return rotated;
      });
    }
  }
  // Of the page with the last sink: no other has as much to read.
  void outline(const StepContext& context, Draft& draft) override {
    draft.start = std::max<int64_t>(0, sinks_ - 1);
    run(context, draft);
  }

 private:
  struct SideFormat {
    std::shared_ptr<const SideCodec> codec;
    bool packed = true;  // false: dense
    std::map<int64_t, std::shared_ptr<const SideCodec>> sinks = {};
    std::map<const SideCodec*, std::shared_ptr<const SideCodec>> rotated = {};
  };

  static SideFormat make_side(const Arguments& arguments, Side side) {
    const char* own = side == Side::kKey ? "k" : "v";
    const auto bits = static_cast<int>(arguments.integer(arguments.has(own) ? own : "bits"));
    if (bits == kDenseBits) return {.codec = make_dense_codec(DType::kF16), .packed = false};
    return {.codec = make_quant_codec({.bits = bits,
                                       .axis = scale_axis(arguments, side),
                                       .group = arguments.is_word("group") ? 0 : arguments.integer("group"),
                                       .symmetric = arguments.flag("symmetric"),
                                       .outliers = arguments.number("outliers"),
                                       .dense_channels = arguments.integer("dense_channels"),
                                       .norm_correct = arguments.flag("norm_correct"),
                                       .for_keys = side == Side::kKey})};
  }

  // How many of the stream's first tokens stand at the sinks' positions: fewer where tokens before them are
  // gone.
  int64_t sinks_of(const Draft& draft, const DraftStream& stream) const {
    const DraftPlaces* places = draft.places_of(stream.origin.layer, stream.origin.kv_head);
    if (!places) return sinks_ - draft.start;
    return std::count_if(places->positions.begin(), places->positions.end(),
                         [&](int32_t position) { return position < sinks_; });
  }

  // One codec for each number of tokens that are still sinks.
  static std::shared_ptr<const SideCodec> with_sinks(SideFormat& side, int64_t tokens) {
    std::shared_ptr<const SideCodec>& codec = side.sinks[tokens];
    if (!codec) codec = make_front_dense_codec(tokens, side.codec);
    return codec;
  }

  bool rotate_;
  int64_t sinks_;
  int64_t window_;
  SideFormat sides_[2];
};

std::vector<ParameterInfo> quant_parameters() {
  using enum ParameterKind;
  ParameterInfo axes = axes_parameter("token");
  axes.words.push_back({"group", {}, "one scale for each run of a token's values"});
  return {
      bits_parameter("4", "width of a code, on both sides"),
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
      axes,
      {.name = "group",
       .kind = kInteger,
       .fallback = "page",
       .lower = 2,
       .upper = kMostGroup,
       .words = {{"page", {}, "as far as the page or the head goes"}, {"head", {}, "the channels of a head"}},
       .help = "numbers that share a scale: tokens where the scale is a channel's, else channels"},
      {.name = "symmetric", .kind = kFlag, .fallback = "false", .help = "no zero point: codes around 0"},
      outliers_parameter("0"),
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
      .aliases = {{"ZeroQuant", "8"}},
      .meaning = "Codes of a few bits, with a scale for each group of numbers",
      .kind = MethodKind::kFormat,
      .papers =
          {{"KIVI: A Tuning-Free Asymmetric 2bit Quantization for KV Cache", "2402.02750"},
           {"KVQuant: Towards 10 Million Context Length LLM Inference with KV Cache Quantization",
            "2401.18079"},
           {"ZeroQuant: Efficient and Affordable Post-Training Quantization for Large-Scale Transformers",
            "2206.01861"},
           {"QuaRot: Outlier-Free 4-Bit Inference in Rotated LLMs", "2404.00456"}},
      .parameters = quant_parameters(),
      .check = check_quant,
      .make = [](const Arguments& arguments) -> std::unique_ptr<Step> {
        return std::make_unique<QuantStep>(arguments);
      },
  };
}

}  // namespace kva
