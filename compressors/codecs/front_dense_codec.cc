#include "compressors/codecs/front_dense_codec.h"

#include <fmt/format.h>

#include <algorithm>

#include "kernels/check.h"

namespace kva {
namespace {

class FrontDenseCodec : public SideCodec {
 public:
  FrontDenseCodec(int64_t front, std::shared_ptr<const SideCodec> inner)
      : front_(front), dense_(make_dense_codec(DType::kF16)), inner_(std::move(inner)) {
    KVA_CHECK(!inner_->has_coordinates(), "dense tokens and others are read in the same coordinates");
  }

  std::string name() const override { return fmt::format("{}, {} tokens f16", inner_->name(), front_); }

  int64_t bytes(int64_t tokens, int64_t width) const override {
    return dense_bytes(tokens, width) + inner_->bytes(rest(tokens), width);
  }
  int64_t scale_bytes(int64_t tokens, int64_t width) const override {
    return inner_->scale_bytes(rest(tokens), width);
  }

  void encode(MatView<const float> rows, const SideData& base, std::byte* payload) const override {
    dense_->encode(rows.row_range(0, front(rows.rows)), {}, payload);
    inner_->encode(rows.row_range(front(rows.rows), rest(rows.rows)), base,
                   payload + dense_bytes(rows.rows, rows.cols));
  }

  int64_t decode_scratch(int64_t tokens, int64_t width) const override {
    return inner_->decode_scratch(tokens, width);
  }
  void decode(const SideData& side, float* scratch, MatView<float> rows) const override {
    dense_->decode(side, scratch, rows.row_range(0, front(rows.rows)));
    inner_->decode(behind(side, rows.rows, rows.cols), scratch,
                   rows.row_range(front(rows.rows), rest(rows.rows)));
  }

  int64_t scratch_values(int64_t queries, int64_t tokens, int64_t width) const override {
    return inner_->scratch_values(queries, tokens, width);
  }
  void scores(MatView<const float> queries, const SideData& side, float* scratch,
              MatView<float> scores) const override {
    const int64_t tokens = scores.cols;
    dense_->scores(queries, side, scratch, scores.col_range(0, front(tokens)));
    inner_->scores(queries, behind(side, tokens, queries.cols), scratch,
                   scores.col_range(front(tokens), rest(tokens)));
  }
  void accumulate(MatView<const float> weights, const SideData& side, float* scratch,
                  MatView<float> out) const override {
    const int64_t tokens = weights.cols;
    dense_->accumulate(weights.col_range(0, front(tokens)), side, scratch, out);
    inner_->accumulate(weights.col_range(front(tokens), rest(tokens)), behind(side, tokens, out.cols),
                       scratch, out);
  }

  std::optional<SideFormat> device_format(int64_t tokens, int64_t width) const override {
    if (rest(tokens) == 0) return dense_->device_format(tokens, width);
    auto format = inner_->device_format(rest(tokens), width);
    if (!format || !is_packed(format->kind) || has_parts(*format)) return std::nullopt;
    const auto dense = static_cast<int32_t>(dense_bytes(tokens, width));
    move_offsets(*format, dense);
    format->front = static_cast<int32_t>(front(tokens));
    format->tokens = static_cast<int32_t>(tokens);
    return format;
  }
  bool device_codes() const override { return inner_->device_codes(); }
  DeviceArrays device_arrays() const override { return inner_->device_arrays(); }

  CodecSpec spec() const override {
    return {.kind = "front", .numbers = {{"tokens", static_cast<double>(front_)}}, .inner = {inner_}};
  }
  bool takes(int64_t width, int64_t base_width) const override { return inner_->takes(width, base_width); }
  bool accepts(const SideData& side, int64_t tokens, int64_t width) const override {
    return inner_->accepts(behind(side, tokens, width), rest(tokens), width);
  }

 private:
  int64_t front(int64_t tokens) const { return std::min(front_, tokens); }
  int64_t rest(int64_t tokens) const { return tokens - front(tokens); }
  int64_t dense_bytes(int64_t tokens, int64_t width) const { return dense_->bytes(front(tokens), width); }
  SideData behind(const SideData& side, int64_t tokens, int64_t width) const {
    return side.part(dense_bytes(tokens, width));
  }

  int64_t front_;
  std::shared_ptr<const SideCodec> dense_;
  std::shared_ptr<const SideCodec> inner_;
};

}  // namespace

std::shared_ptr<const SideCodec> make_front_dense_codec(int64_t front,
                                                        std::shared_ptr<const SideCodec> inner) {
  return std::make_shared<FrontDenseCodec>(front, std::move(inner));
}

}  // namespace kva
