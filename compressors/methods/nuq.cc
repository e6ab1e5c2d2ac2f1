// nuq (KVQuant, arXiv 2401.18079, section 3.3): codes whose levels are learnt. Each vector, a channel of a
// page or a token, is brought to [-1, 1]; a layer's levels there are the k-means of a calibration text's
// numbers, each weighted by the attention that its token received (the paper weights by Fisher information).

#include <fmt/format.h>

#include "compressors/codecs/codebook_codec.h"
#include "compressors/learned_format.h"
#include "compressors/method.h"
#include "compressors/scale_parameters.h"

namespace kva {
namespace {

class NuqStep : public LearnedFormat {
 public:
  explicit NuqStep(const Arguments& arguments)
      : LearnedFormat("nuq"),
        bits_(static_cast<int>(arguments.integer("bits"))),
        outliers_(arguments.number("outliers")),
        axes_{scale_axis(arguments, Side::kKey), scale_axis(arguments, Side::kValue)} {}

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

  int64_t codebook_numbers(const StepContext&) const override { return int64_t{1} << bits_; }

  std::shared_ptr<const SideCodec> make(const StepContext& context, const LayerSide& of,
                                        std::span<const float> codebook) const override {
    return make_codebook_codec(format_of(of.side),
                               std::make_shared<const SideArray>(
                                   make_f16_array(context.cache.side_memory(), codebook, "nuq codebook")));
  }

 private:
  CodebookFormat format_of(Side side) const {
    const ScaleAxis axis = axes_[side == Side::kKey ? 0 : 1];
    const std::string_view axis_name = axis == ScaleAxis::kToken ? "token" : "channel";
    return {.name = fmt::format("nuq(bits={},outliers={},axes={})", bits_, outliers_, axis_name),
            .bits = bits_,
            .axis = axis,
            .for_keys = side == Side::kKey,
            .outliers = outliers_};
  }

  int bits_;
  double outliers_;
  ScaleAxis axes_[2];  // of keys, of values
};

}  // namespace

MethodInfo nuq_method() {
  return {
      .name = "nuq",
      .meaning =
          "Codes whose levels are k-means of a calibration text, weighted by attention where the text "
          "comes with it",
      .kind = MethodKind::kFormat,
      .papers = {{"KVQuant: Towards 10 Million Context Length LLM Inference with KV Cache Quantization",
                  "2401.18079"}},
      .parameters = {bits_parameter("3", "width of a code: 2^bits levels, stored for each layer and side"),
                     outliers_parameter("0.01"), axes_parameter("kivi")},
      .make = [](const Arguments& arguments) -> std::unique_ptr<Step> {
        return std::make_unique<NuqStep>(arguments);
      },
  };
}

}  // namespace kva
