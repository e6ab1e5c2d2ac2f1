#include "compressors/codecs/hadamard_codec.h"

#include <algorithm>
#include <vector>

#include "kernels/hadamard.h"

namespace kva {
namespace {

class HadamardCodec : public SideCodec {
 public:
  explicit HadamardCodec(std::shared_ptr<const SideCodec> inner) : inner_(std::move(inner)) {}

  std::string name() const override { return "rotated " + inner_->name(); }
  int64_t bytes(int64_t tokens, int64_t width) const override { return inner_->bytes(tokens, width); }
  int64_t scale_bytes(int64_t tokens, int64_t width) const override {
    return inner_->scale_bytes(tokens, width);
  }

  void encode(MatView<const float> rows, const SideData& base, std::byte* payload) const override {
    std::vector<float> values(static_cast<std::size_t>(rows.rows * rows.cols));
    const MatView<float> rotated(values.data(), rows.rows, rows.cols);
    project(rows, rotated);
    inner_->encode(rotated, base, payload);
  }

  int64_t decode_scratch(int64_t tokens, int64_t width) const override {
    return inner_->decode_scratch(tokens, width);
  }
  void decode(const SideData& side, float* scratch, MatView<float> rows) const override {
    inner_->decode(side, scratch, rows);
    hadamard_rows(rows);
  }

  int64_t scratch_values(int64_t queries, int64_t tokens, int64_t width) const override {
    return std::max(inner_->scratch_values(queries, tokens, width), queries * width);
  }
  void scores(MatView<const float> queries, const SideData& side, float* scratch,
              MatView<float> scores) const override {
    inner_->scores(queries, side, scratch, scores);
  }
  void accumulate(MatView<const float> weights, const SideData& side, float* scratch,
                  MatView<float> out) const override {
    inner_->accumulate(weights, side, scratch, out);
  }

  bool has_coordinates() const override { return true; }
  void project(MatView<const float> queries, MatView<float> coords) const override {
    for (int64_t r = 0; r < queries.rows; ++r) std::copy_n(queries.row(r), queries.cols, coords.row(r));
    hadamard_rows(coords);
  }
  void lift(MatView<const float> coords, MatView<float> out) const override {
    std::vector<float> row(static_cast<std::size_t>(coords.cols));
    for (int64_t r = 0; r < coords.rows; ++r) {
      std::copy_n(coords.row(r), coords.cols, row.data());
      hadamard_rows(MatView<float>(row.data(), 1, coords.cols));
      for (int64_t c = 0; c < coords.cols; ++c) out.at(r, c) += row[static_cast<std::size_t>(c)];
    }
  }

  std::optional<SideFormat> device_format(int64_t tokens, int64_t width) const override {
    auto format = inner_->device_format(tokens, width);
    if (!format || format->hadamard || !takes(width, 0)) return std::nullopt;
    format->hadamard = true;
    return format;
  }

  DeviceArrays device_arrays() const override { return inner_->device_arrays(); }

  CodecSpec spec() const override { return {.kind = "hadamard", .inner = {inner_}}; }
  bool takes(int64_t width, int64_t base_width) const override {
    return (width & (width - 1)) == 0 && inner_->takes(width, base_width);
  }
  bool accepts(const SideData& side, int64_t tokens, int64_t width) const override {
    return inner_->accepts(side, tokens, width);
  }

 private:
  std::shared_ptr<const SideCodec> inner_;
};

}  // namespace

std::shared_ptr<const SideCodec> make_hadamard_codec(std::shared_ptr<const SideCodec> inner) {
  return std::make_shared<HadamardCodec>(std::move(inner));
}

}  // namespace kva
