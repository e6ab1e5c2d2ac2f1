#include "compressors/codecs/fp8_codec.h"

namespace kva {
namespace {

const uint8_t* codes_of(const SideData& side) { return reinterpret_cast<const uint8_t*>(side.payload); }

class Fp8Codec : public SideCodec {
 public:
  explicit Fp8Codec(Fp8 type) : type_(type) {}

  std::string name() const override { return type_ == Fp8::kE4M3 ? "dense(fp8_e4m3)" : "dense(fp8_e5m2)"; }
  int64_t bytes(int64_t tokens, int64_t width) const override { return tokens * width; }

  void encode(MatView<const float> rows, const SideData&, std::byte* payload) const override {
    for (int64_t t = 0; t < rows.rows; ++t)
      fp8_from_f32(rows.row(t), type_, reinterpret_cast<uint8_t*>(payload) + t * rows.cols, rows.cols);
  }
  void decode(const SideData& side, float*, MatView<float> rows) const override {
    for (int64_t t = 0; t < rows.rows; ++t)
      fp8_to_f32(codes_of(side) + t * rows.cols, type_, rows.row(t), rows.cols);
  }

  int64_t scratch_values(int64_t, int64_t, int64_t) const override { return 0; }
  void scores(MatView<const float> queries, const SideData& side, float*,
              MatView<float> scores) const override {
    fp8_scores(queries, codes_of(side), type_, scores, side.ahead);
  }
  void accumulate(MatView<const float> weights, const SideData& side, float*,
                  MatView<float> out) const override {
    fp8_accumulate(weights, codes_of(side), type_, out, side.ahead);
  }

  std::optional<SideFormat> device_format(int64_t, int64_t width) const override {
    return SideFormat{.kind = type_ == Fp8::kE4M3 ? SideKind::kE4M3 : SideKind::kE5M2,
                      .width = static_cast<int32_t>(width),
                      .bytes = static_cast<int32_t>(width)};
  }

  bool device_codes() const override { return true; }

  CodecSpec spec() const override { return {.kind = name()}; }

 private:
  Fp8 type_;
};

}  // namespace

std::shared_ptr<const SideCodec> make_fp8_codec(Fp8 type) { return std::make_shared<Fp8Codec>(type); }

}  // namespace kva
