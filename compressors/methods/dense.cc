// dense: every number kept, rounded to one type.

#include "compressors/codecs/fp8_codec.h"
#include "compressors/method.h"
#include "compressors/step.h"

namespace kva {
namespace {

class DenseStep : public Step {
 public:
  explicit DenseStep(std::shared_ptr<const SideCodec> codec) : codec_(std::move(codec)) {}

  bool reads_numbers() const override { return false; }
  void run(const StepContext& context, Draft& draft) override {
    for (DraftStream& stream : draft.streams) {
      if (!stream.unformatted()) continue;
      const bool open_type = context.cache.options().k_codec->name() == codec_->name();
      if (open_type && stream.wraps.empty() && !stream.shared) continue;  // as it lies in the cache already
      stream.format = codec_;
    }
  }

 private:
  std::shared_ptr<const SideCodec> codec_;
};

std::unique_ptr<Step> make_dense(const Arguments& arguments) {
  const std::string_view word = arguments.word("type");
  if (const auto type = parse_dtype(word)) return std::make_unique<DenseStep>(make_dense_codec(*type));
  return std::make_unique<DenseStep>(make_fp8_codec(word == "fp8_e4m3" ? Fp8::kE4M3 : Fp8::kE5M2));
}

}  // namespace

MethodInfo dense_method() {
  return {
      .name = "dense",
      .aliases = {{"Baseline", "f16"}},
      .meaning = "Keeps every number, rounded to one type",
      .kind = MethodKind::kFormat,
      .papers = {{"FP8 Formats for Deep Learning", "2209.05433"}},
      .parameters = {{.name = "type",
                      .kind = ParameterKind::kWord,
                      .fallback = "f16",
                      .words =
                          {
                              {"f16", {"fp16", "float16"}, "16 bits, 11 of them precision"},
                              {"f32", {"fp32", "float32"}, "32 bits, as the model computes"},
                              {"bf16", {"bfloat16"}, "16 bits, 8 of them precision, the range of f32"},
                              {"fp8_e4m3", {"fp8", "e4m3"}, "8 bits, 4 of them precision, up to 448"},
                              {"fp8_e5m2", {"e5m2"}, "8 bits, 3 of them precision, up to 57344"},
                          },
                      .help = "type of the cached numbers"}},
      .make = make_dense,
  };
}

}  // namespace kva
