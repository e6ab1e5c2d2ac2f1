// turboquant (arXiv 2504.19874, algorithm 1, without the second stage QJL): a token keeps its length; its
// direction is turned at random, which makes its numbers nearly normal whatever they were, and each is stored
// by the levels of least error for the normal distribution. The decoded direction gets the token's length.

#include <fmt/format.h>

#include <map>

#include "compressors/codecs/codebook_codec.h"
#include "compressors/codecs/rotation_codec.h"
#include "compressors/codecs/signposts.h"
#include "compressors/method.h"
#include "compressors/step.h"

namespace kva {
namespace {

class TurboQuantStep : public Step {
 public:
  explicit TurboQuantStep(const Arguments& arguments) : bits_(static_cast<int>(arguments.integer("bits"))) {}

  bool reads_numbers() const override { return false; }

  void run(const StepContext& context, Draft& draft) override {
    for (DraftStream& stream : draft.streams) {
      if (!stream.unformatted()) continue;
      const Codecs& codecs = of_width(context, stream.width).sides[stream.origin.side == Side::kKey ? 0 : 1];
      // Codecs of earlier steps read this one inside them.
      stream.format = stream.shared || !stream.wraps.empty() ? codecs.turned_back : codecs.turned;
    }
  }

 private:
  struct Codecs {
    std::shared_ptr<const SideCodec> turned;
    std::shared_ptr<const SideCodec> turned_back;
  };

  struct OfWidth {
    Codecs sides[2];
  };

  const OfWidth& of_width(const StepContext& context, int64_t width) {
    OfWidth& codecs = codecs_[width];
    if (codecs.sides[0].turned) return codecs;
    const auto memory = context.cache.side_memory();
    const std::vector<double> exact = lloyd_max_levels(bits_);
    const std::vector<float> levels(exact.begin(), exact.end());
    const auto rotation = std::make_shared<const SideArray>(
        make_f16_array(memory, random_rotation(width, context.seed), "turboquant rotation"));
    const auto codebook =
        std::make_shared<const SideArray>(make_f16_array(memory, levels, "turboquant codebook"));
    for (const bool for_keys : {true, false}) {
      const auto inner = make_codebook_codec({.name = fmt::format("turboquant({})", bits_),
                                              .bits = bits_,
                                              .axis = ScaleAxis::kToken,
                                              .scaling = CodebookFormat::Scaling::kLength,
                                              .for_keys = for_keys},
                                             codebook);
      codecs.sides[for_keys ? 0 : 1] = {make_rotation_codec(inner, rotation, TurnedReading::kTurned),
                                        make_rotation_codec(inner, rotation, TurnedReading::kTurnedBack)};
    }
    return codecs;
  }

  int bits_;
  std::map<int64_t, OfWidth> codecs_;  // by width
};

// The rotation and RoPE do not commute, so queries could not be turned before they meet the keys.
std::string check_turboquant(const Arguments&, const StepPlace& place) {
  if (!covers(place.sides, Side::kKey) || place.key_basis != KeyBasis::kPlain) return "";
  return "cannot turn the keys of keys(plain), found both; use keys(rotated) or side(v)";
}

}  // namespace

MethodInfo turboquant_method() {
  using enum ParameterKind;
  return {
      .name = "turboquant",
      .meaning = "Tokens turned at random, then levels for normal numbers; each token keeps its length",
      .kind = MethodKind::kFormat,
      .papers = {{"TurboQuant: Online Vector Quantization with Near-optimal Distortion Rate", "2504.19874"}},
      .parameters = {{.name = "bits",
                      .kind = kInteger,
                      .fallback = "4",
                      .lower = 2,
                      .upper = 8,
                      .values = {2, 3, 4, 8},
                      .unit = "bits",
                      .help = "width of a code"}},
      .check = check_turboquant,
      .make = [](const Arguments& arguments) -> std::unique_ptr<Step> {
        return std::make_unique<TurboQuantStep>(arguments);
      },
  };
}

}  // namespace kva
