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

  void run(const StepContext& context, Draft& draft) override {
    for (DraftStream& stream : draft.streams) {
      if (!stream.unformatted()) continue;
      const Codecs& codecs = of_width(context, stream.width);
      // Codecs of earlier steps read this one inside them.
      stream.format = stream.shared || !stream.wraps.empty() ? codecs.turned_back : codecs.turned;
    }
  }

 private:
  struct Codecs {
    std::shared_ptr<const SideCodec> turned;
    std::shared_ptr<const SideCodec> turned_back;
  };

  const Codecs& of_width(const StepContext& context, int64_t width) {
    Codecs& codecs = codecs_[width];
    if (codecs.turned) return codecs;
    const auto memory = context.cache.side_memory();
    const std::vector<double> exact = lloyd_max_levels(bits_);
    const std::vector<float> levels(exact.begin(), exact.end());
    const auto inner = make_codebook_codec({.name = fmt::format("turboquant({})", bits_),
                                            .bits = bits_,
                                            .axis = ScaleAxis::kToken,
                                            .scaling = CodebookFormat::Scaling::kLength},
                                           make_f16_array(memory, levels, "turboquant codebook"));
    const auto rotation = std::make_shared<const SideArray>(
        make_f16_array(memory, random_rotation(width, context.seed), "turboquant rotation"));
    codecs.turned = make_rotation_codec(inner, rotation, TurnedReading::kTurned);
    codecs.turned_back = make_rotation_codec(inner, rotation, TurnedReading::kTurnedBack);
    return codecs;
  }

  int bits_;
  std::map<int64_t, Codecs> codecs_;  // by width
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
