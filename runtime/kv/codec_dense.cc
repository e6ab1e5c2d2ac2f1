#include <fmt/format.h>

#include <map>
#include <mutex>

#include "kernels/check.h"
#include "kernels/convert.h"
#include "kernels/dense_rows.h"
#include "runtime/kv/codec.h"

namespace kva {
namespace {

// Payload: rows [tokens, width] of the type, row-major, without padding.
class DenseCodec : public SideCodec {
 public:
  explicit DenseCodec(DType type) : type_(type) {}

  std::string name() const override { return fmt::format("dense({})", dtype_name(type_)); }

  int64_t bytes(int64_t tokens, int64_t width) const override { return tokens * width * dtype_bytes(type_); }

  void encode(MatView<const float> rows, const SideData&, std::byte* payload) const override {
    append(rows, 0, payload);
  }

  bool appendable() const override { return true; }

  void append(MatView<const float> rows, int64_t first_token, std::byte* payload) const override {
    std::byte* target = payload + bytes(first_token, rows.cols);
    if (rows.stride == rows.cols) return from_f32(rows.data, type_, target, rows.rows * rows.cols);
    for (int64_t r = 0; r < rows.rows; ++r)
      from_f32(rows.row(r), type_, target + bytes(r, rows.cols), rows.cols);
  }

  void decode(const SideData& side, float*, MatView<float> rows) const override {
    if (rows.stride == rows.cols) return to_f32(side.payload, type_, rows.data, rows.rows * rows.cols);
    for (int64_t r = 0; r < rows.rows; ++r)
      to_f32(side.payload + bytes(r, rows.cols), type_, rows.row(r), rows.cols);
  }

  void scores(MatView<const float> queries, const SideData& side, float*,
              MatView<float> scores) const override {
    dense_scores(queries, side.payload, type_, scores, side.ahead);
  }

  void accumulate(MatView<const float> weights, const SideData& side, float*,
                  MatView<float> out) const override {
    dense_accumulate(weights, side.payload, type_, out, side.ahead);
  }

  int64_t scratch_values(int64_t, int64_t, int64_t) const override { return 0; }

  std::optional<SideFormat> device_format(int64_t, int64_t width) const override {
    return SideFormat{
        .kind = kind(), .width = static_cast<int32_t>(width), .bytes = static_cast<int32_t>(bytes(1, width))};
  }

  bool device_codes() const override { return true; }

  CodecSpec spec() const override { return {.kind = name()}; }

 private:
  SideKind kind() const {
    switch (type_) {
      case DType::kF32: return SideKind::kF32;
      case DType::kF16: return SideKind::kF16;
      case DType::kBF16: return SideKind::kBF16;
    }
    KVA_CHECK(false, "a type of pages");
  }

  DType type_;
};

}  // namespace

std::shared_ptr<const SideCodec> make_dense_codec(DType type) {
  static std::mutex mutex;
  static std::map<DType, std::shared_ptr<const SideCodec>> codecs;
  const std::lock_guard<std::mutex> lock(mutex);
  std::shared_ptr<const SideCodec>& codec = codecs[type];
  if (!codec) codec = std::make_shared<DenseCodec>(type);
  return codec;
}

}  // namespace kva
