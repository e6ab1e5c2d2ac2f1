#include "runtime/kv/codec.h"

#include "kernels/check.h"
#include "kernels/dense_rows.h"
#include "kernels/fetch.h"

namespace kva {

int64_t SideCodec::decode_scratch(int64_t, int64_t) const { return 0; }

int64_t SideCodec::scale_bytes(int64_t, int64_t) const { return 0; }

void SideCodec::append(MatView<const float>, int64_t, std::byte*) const {
  KVA_CHECK(false, "only appendable codecs grow token by token");
}

void SideCodec::scores(MatView<const float> queries, const SideData& side, float* scratch,
                       MatView<float> scores) const {
  const MatView<float> rows(scratch, scores.cols, queries.cols);
  fetch(side.ahead, bytes(rows.rows, rows.cols));
  decode(side, scratch + rows.rows * rows.cols, rows);
  dense_scores(queries, rows.data, DType::kF32, scores);
}

void SideCodec::accumulate(MatView<const float> weights, const SideData& side, float* scratch,
                           MatView<float> out) const {
  const MatView<float> rows(scratch, weights.cols, out.cols);
  fetch(side.ahead, bytes(rows.rows, rows.cols));
  decode(side, scratch + rows.rows * rows.cols, rows);
  dense_accumulate(weights, rows.data, DType::kF32, out);
}

int64_t SideCodec::scratch_values(int64_t, int64_t tokens, int64_t width) const {
  return tokens * width + decode_scratch(tokens, width);
}

void SideCodec::project(MatView<const float>, MatView<float>) const {
  KVA_CHECK(false, "only codecs with coordinates of their own project");
}

void SideCodec::lift(MatView<const float>, MatView<float>) const {
  KVA_CHECK(false, "only codecs with coordinates of their own lift");
}

std::optional<SideFormat> SideCodec::device_format(int64_t, int64_t) const { return std::nullopt; }

std::optional<SideFormat> SideCodec::device_format_on(const SideFormat&, int64_t, int64_t) const {
  return std::nullopt;
}

CodecSpec SideCodec::spec() const { return {}; }

bool SideCodec::takes(int64_t, int64_t base_width) const { return base_width == 0; }

bool SideCodec::accepts(const SideData&, int64_t, int64_t) const { return true; }

}  // namespace kva
