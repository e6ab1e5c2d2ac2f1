// nuq (KVQuant, arXiv 2401.18079, section 3.3): codes whose levels are learnt. Each vector, a channel of a
// page or a token, is brought to [-1, 1]; a layer's levels there are the k-means of a calibration text's
// numbers, each weighted by the attention that its token received (the paper weights by Fisher information).

#include <fmt/format.h>

#include "compressors/codecs/codebook_codec.h"
#include "compressors/learned_format.h"
#include "compressors/method.h"

namespace kva {
namespace {

ScaleAxis axis_of(std::string_view axes, Side side) {
  if (axes == "kivi") return side == Side::kKey ? ScaleAxis::kChannel : ScaleAxis::kToken;
  return axes == "channel" ? ScaleAxis::kChannel : ScaleAxis::kToken;
}

class NuqStep : public LearnedFormat {
 public:
  explicit NuqStep(const Arguments& arguments)
      : LearnedFormat("nuq"),
        bits_(static_cast<int>(arguments.integer("bits"))),
        outliers_(arguments.number("outliers")),
        axes_(arguments.word("axes")) {}

 protected:
  std::vector<float> learn(const StepContext&, const PageSet& sample, const LayerSide& of) const override {
    const CodebookFormat format = format_of(of.side);
    NumberHistogram histogram;
    std::vector<float> page(static_cast<std::size_t>(sample.page_tokens) *
                            static_cast<std::size_t>(sample.head_dim));
    const MatView<float> rows(page.data(), sample.page_tokens, sample.head_dim);
    for (int64_t p = 0; p < sample.page_count(); ++p)
      for (const int head : of.kv_heads) {
        const Cell cell{of.layer, head, of.side};
        read_finite_sample(name(), sample, cell, p, rows);
        add_scaled(format, rows, sample_mass(sample, cell, p), histogram);
      }
    return histogram.levels(format.levels());
  }

  std::shared_ptr<const SideCodec> make(const StepContext& context, const LayerSide& of,
                                        std::span<const float> codebook) const override {
    return make_codebook_codec(format_of(of.side),
                               std::make_shared<const SideArray>(
                                   make_f16_array(context.cache.side_memory(), codebook, "nuq codebook")));
  }

 private:
  CodebookFormat format_of(Side side) const {
    const ScaleAxis axis = axis_of(axes_, side);
    const std::string_view axis_name = axis == ScaleAxis::kToken ? "token" : "channel";
    return {.name = fmt::format("nuq(bits={},outliers={},axes={})", bits_, outliers_, axis_name),
            .bits = bits_,
            .axis = axis,
            .for_keys = side == Side::kKey,
            .outliers = outliers_};
  }

  int bits_;
  double outliers_;
  std::string_view axes_;
};

}  // namespace

MethodInfo nuq_method() {
  using enum ParameterKind;
  return {
      .name = "nuq",
      .meaning =
          "Codes whose levels are k-means of a calibration text, weighted by attention where the text "
          "comes with it",
      .kind = MethodKind::kFormat,
      .papers = {{"KVQuant: Towards 10 Million Context Length LLM Inference with KV Cache Quantization",
                  "2401.18079"}},
      .parameters = {{.name = "bits",
                      .kind = kInteger,
                      .fallback = "3",
                      .lower = 2,
                      .upper = 8,
                      .values = {2, 3, 4, 8},
                      .unit = "bits",
                      .help = "width of a code: 2^bits levels, stored for each layer and side"},
                     {.name = "outliers",
                      .kind = kNumber,
                      .fallback = "0.01",
                      .lower = 0,
                      .upper = 0.5,
                      .help = "share of a page side's numbers kept as f16 with their place: those farthest "
                              "from the mean of their channel or token"},
                     {.name = "axes",
                      .kind = kWord,
                      .fallback = "kivi",
                      .words = {{"token", {}, "one scale for each token and head"},
                                {"channel", {}, "one scale for each channel of a page"},
                                {"kivi", {}, "keys by channel, values by token"}},
                      .help = "which numbers share a scale"}},
      .make = [](const Arguments& arguments) -> std::unique_ptr<Step> {
        return std::make_unique<NuqStep>(arguments);
      },
  };
}

}  // namespace kva
