#include <fmt/format.h>

#include "kernels/convert.h"
#include "kernels/dense_rows.h"
#include "runtime/kv/codec.h"

namespace kva {
namespace {

// Payload: rows [tokens, head_dim] of the type, row-major, without padding.
class DenseCodec : public SideCodec {
 public:
  explicit DenseCodec(DType type) : type_(type) {}

  std::string name() const override { return fmt::format("dense({})", dtype_name(type_)); }

  int64_t bytes(int64_t tokens, int64_t head_dim) const override {
    return tokens * head_dim * dtype_bytes(type_);
  }

  void encode(MatView<const float> rows, int64_t first_token, int64_t page_tokens,
              std::byte* payload) const override {
    KVA_CHECK(first_token >= 0 && first_token + rows.rows <= page_tokens, "tokens outside the page");
    std::byte* target = payload + bytes(first_token, rows.cols);
    if (rows.stride == rows.cols) return from_f32(rows.data, type_, target, rows.rows * rows.cols);
    for (int64_t r = 0; r < rows.rows; ++r)
      from_f32(rows.row(r), type_, target + bytes(r, rows.cols), rows.cols);
  }

  void decode(const std::byte* payload, int64_t first_token, int64_t page_tokens,
              MatView<float> rows) const override {
    KVA_CHECK(first_token >= 0 && first_token + rows.rows <= page_tokens, "tokens outside the page");
    const std::byte* source = payload + bytes(first_token, rows.cols);
    if (rows.stride == rows.cols) return to_f32(source, type_, rows.data, rows.rows * rows.cols);
    for (int64_t r = 0; r < rows.rows; ++r)
      to_f32(source + bytes(r, rows.cols), type_, rows.row(r), rows.cols);
  }

  void scores(MatView<const float> queries, const std::byte* payload, int64_t page_tokens,
              MatView<float> scores) const override {
    KVA_CHECK(scores.cols <= page_tokens, "tokens outside the page");
    dense_scores(queries, payload, type_, scores);
  }

  void accumulate(MatView<const float> weights, const std::byte* payload, int64_t page_tokens,
                  MatView<float> out) const override {
    KVA_CHECK(weights.cols <= page_tokens, "tokens outside the page");
    dense_accumulate(weights, payload, type_, out);
  }

 private:
  DType type_;
};

}  // namespace

std::shared_ptr<const SideCodec> make_dense_codec(DType type) { return std::make_shared<DenseCodec>(type); }

}  // namespace kva
