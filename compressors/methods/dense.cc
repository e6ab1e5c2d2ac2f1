// dense: every number kept, rounded to one type.

#include "compressors/method.h"

namespace kva {

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
                      .words = {{"f16", {"fp16", "float16"}, "16 bits, 11 of them precision"},
                                {"f32", {"fp32", "float32"}, "32 bits, as the model computes"},
                                {"bf16", {"bfloat16"}, "16 bits, 8 of them precision, the range of f32"},
                                {"fp8_e4m3", {"fp8", "e4m3"}, "8 bits, 4 of them precision, up to 448"},
                                {"fp8_e5m2", {"e5m2"}, "8 bits, 3 of them precision, up to 57344"}},
                      .help = "type of the cached numbers"}},
  };
}

}  // namespace kva
