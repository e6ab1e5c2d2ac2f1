// dense: every number kept, rounded to one type.

#include "compressors/method.h"
#include "compressors/step.h"
#include "kernels/check.h"

namespace kva {
namespace {

class DenseStep : public Step {
 public:
  explicit DenseStep(DType type) : codec_(make_dense_codec(type)) {}

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
  const auto type = parse_dtype(arguments.word("type"));
  KVA_CHECK(type.has_value(), "every word of dense is a type");
  return std::make_unique<DenseStep>(*type);
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
