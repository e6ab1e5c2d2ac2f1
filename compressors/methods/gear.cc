// gear (arXiv 2403.05527): codes of few bits, outliers beside them, and a low-rank part of what both lose.
// The paper takes the low-rank part of a whole prompt, and as outliers the ends of each channel or token;
// here both are of a page, so that a page is complete in itself, and outliers are chosen as quant chooses
// them.

#include "compressors/codecs/quant_codec.h"
#include "compressors/codecs/residual_codec.h"
#include "compressors/method.h"
#include "compressors/scale_parameters.h"
#include "compressors/step.h"

namespace kva {
namespace {

class GearStep : public Step {
 public:
  explicit GearStep(const Arguments& arguments)
      : codecs_{make_codec(arguments, Side::kKey), make_codec(arguments, Side::kValue)} {}

  void run(const StepContext&, Draft& draft) override {
    for (DraftStream& stream : draft.streams)
      if (stream.unformatted()) stream.format = codecs_[stream.origin.side == Side::kKey ? 0 : 1];
  }

 private:
  static std::shared_ptr<const SideCodec> make_codec(const Arguments& arguments, Side side) {
    return make_residual_codec(
        arguments.integer("rank"),
        make_quant_codec({.bits = static_cast<int>(arguments.integer("bits")),
                          .axis = scale_axis(arguments, side),
                          .group = arguments.is_word("group") ? 0 : arguments.integer("group"),
                          .outliers = arguments.number("outliers"),
                          .for_keys = side == Side::kKey}));
  }

  std::shared_ptr<const SideCodec> codecs_[2];  // of keys, of values
};

}  // namespace

MethodInfo gear_method() {
  using enum ParameterKind;
  return {
      .name = "gear",
      .meaning = "Codes of a few bits, outliers, and a low-rank part of what they lose",
      .kind = MethodKind::kFormat,
      .papers = {{"GEAR: An Efficient KV Cache Compression Recipe for Near-Lossless Generative Inference of "
                  "LLM",
                  "2403.05527"}},
      .parameters =
          {bits_parameter("4", "width of a code, on both sides"),
           {.name = "rank",
            .kind = kInteger,
            .fallback = "2",
            .lower = 1,
            .upper = 64,
            .unit = "dimensions",
            .help = "of the low-rank part of a page side: that many f16 numbers for each token and channel"},
           outliers_parameter("0.02"),
           axes_parameter("kivi"),
           {.name = "group",
            .kind = kInteger,
            .fallback = "page",
            .lower = 2,
            .upper = 1024,
            .words = {{"page", {}, "as far as the page or the head goes"}},
            .help = "numbers that share a scale: tokens where the scale is a channel's, else channels"}},
      .make = [](const Arguments& arguments) -> std::unique_ptr<Step> {
        return std::make_unique<GearStep>(arguments);
      },
  };
}

}  // namespace kva
