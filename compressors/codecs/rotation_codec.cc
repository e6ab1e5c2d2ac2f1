#include "compressors/codecs/rotation_codec.h"

#include <algorithm>
#include <cmath>
#include <numbers>

#include "kernels/check.h"
#include "kernels/convert.h"
#include "kernels/dense_rows.h"
#include "kernels/exact_products.h"
#include "kernels/random.h"

namespace kva {
namespace {

class RotationCodec : public SideCodec {
 public:
  RotationCodec(std::shared_ptr<const SideCodec> inner, std::shared_ptr<const SideArray> rotation,
                TurnedReading reading)
      : inner_(std::move(inner)), rotation_(std::move(rotation)), reading_(reading) {
    KVA_CHECK(!inner_->has_coordinates(), "coordinates of one kind");
  }

  std::string name() const override { return inner_->name(); }

  int64_t bytes(int64_t tokens, int64_t width) const override { return inner_->bytes(tokens, width); }
  int64_t scale_bytes(int64_t tokens, int64_t width) const override {
    return inner_->scale_bytes(tokens, width);
  }

  void encode(MatView<const float> rows, const SideData& base, std::byte* payload) const override {
    std::vector<float> turned(static_cast<std::size_t>(rows.rows * rows.cols));
    const MatView<float> into(turned.data(), rows.rows, rows.cols);
    turn_exactly(rows, into);
    inner_->encode(into, base, payload);
  }

  int64_t decode_scratch(int64_t tokens, int64_t width) const override {
    return tokens * width + inner_->decode_scratch(tokens, width);
  }

  void decode(const SideData& side, float* scratch, MatView<float> rows) const override {
    const MatView<float> turned(scratch, rows.rows, rows.cols);
    inner_->decode(side, scratch + rows.rows * rows.cols, turned);
    for (int64_t t = 0; t < rows.rows; ++t) std::fill_n(rows.row(t), rows.cols, 0.0f);
    lift(turned, rows);
  }

  bool has_coordinates() const override { return reading_ == TurnedReading::kTurned; }

  void project(MatView<const float> queries, MatView<float> coords) const override { turn(queries, coords); }

  // Πᵀ y is the sum of Π's rows, weighted by y.
  void lift(MatView<const float> coords, MatView<float> out) const override {
    check(out.cols);
    dense_accumulate(coords, rotation_->data(), DType::kF16, out);
  }

  int64_t scratch_values(int64_t queries, int64_t tokens, int64_t width) const override {
    if (!has_coordinates()) return SideCodec::scratch_values(queries, tokens, width);
    return std::max(inner_->scratch_values(queries, tokens, width), decode_scratch(tokens, width));
  }

  void scores(MatView<const float> queries, const SideData& side, float* scratch,
              MatView<float> scores) const override {
    if (!has_coordinates()) return SideCodec::scores(queries, side, scratch, scores);
    inner_->scores(queries, side, scratch, scores);
  }

  void accumulate(MatView<const float> weights, const SideData& side, float* scratch,
                  MatView<float> out) const override {
    if (!has_coordinates()) return SideCodec::accumulate(weights, side, scratch, out);
    inner_->accumulate(weights, side, scratch, out);
  }

  // A rotation is a basis of as many vectors as a token has numbers. Read the other way, it has no kernels.
  std::optional<SideFormat> device_format(int64_t tokens, int64_t width) const override {
    auto format = inner_->device_format(tokens, width);
    if (!format || !has_coordinates() || format->on_basis || format->hadamard || !takes(width, 0))
      return std::nullopt;
    format->on_basis = true;
    return format;
  }
  bool device_codes() const override { return has_coordinates() && inner_->device_codes(); }
  DeviceArrays device_arrays() const override { return inner_->device_arrays(); }
  DeviceBasis device_basis() const override { return {rotation_.get(), 0}; }

  CodecSpec spec() const override {
    return {.kind = "rotation",
            .numbers = {{"turned_back", has_coordinates() ? 0.0 : 1.0}},
            .inner = {inner_},
            .arrays = {bytes_of(*rotation_)}};
  }
  bool takes(int64_t width, int64_t base_width) const override {
    return rotation_->bytes() == width * width * 2 && inner_->takes(width, base_width);
  }
  bool accepts(const SideData& side, int64_t tokens, int64_t width) const override {
    return inner_->accepts(side, tokens, width);
  }

 private:
  void check(int64_t width) const {
    KVA_CHECK(rotation_->bytes() == width * width * 2, "a rotation of the tokens' width");
  }
  void turn(MatView<const float> rows, MatView<float> turned) const {
    check(rows.cols);
    dense_scores(rows, rotation_->data(), DType::kF16, turned);
  }

  // What is stored is the same wherever it is coded.
  void turn_exactly(MatView<const float> rows, MatView<float> turned) const {
    check(rows.cols);
    std::vector<float> vectors(static_cast<std::size_t>(rows.cols * rows.cols));
    to_f32(rotation_->data(), DType::kF16, vectors.data(), rows.cols * rows.cols);
    exact_products(rows, MatView<const float>(vectors.data(), rows.cols, rows.cols), turned);
  }

  std::shared_ptr<const SideCodec> inner_;
  std::shared_ptr<const SideArray> rotation_;
  TurnedReading reading_;
};

double normal(SplitMix64& random) {
  const double radius = std::sqrt(-2.0 * std::log(1.0 - random.uniform()));
  return radius * std::cos(2.0 * std::numbers::pi * random.uniform());
}

}  // namespace

std::vector<float> random_rotation(int64_t width, uint64_t seed) {
  SplitMix64 random(seed);
  const auto d = static_cast<std::size_t>(width);
  std::vector<std::vector<double>> rows(d, std::vector<double>(d));
  for (std::size_t r = 0; r < d; ++r) {
    std::vector<double>& row = rows[r];
    for (double& value : row) value = normal(random);
    // Twice is enough (Parlett): what rounding left of the other rows is gone then.
    for (int pass = 0; pass < 2; ++pass)
      for (std::size_t before = 0; before < r; ++before) {
        double dot = 0.0;
        for (std::size_t i = 0; i < d; ++i) dot += row[i] * rows[before][i];
        for (std::size_t i = 0; i < d; ++i) row[i] -= dot * rows[before][i];
      }
    double squares = 0.0;
    for (const double value : row) squares += value * value;
    for (double& value : row) value /= std::sqrt(squares);
  }
  std::vector<float> result;
  for (const std::vector<double>& row : rows)
    for (const double value : row) result.push_back(static_cast<float>(value));
  return result;
}

std::shared_ptr<const SideCodec> make_rotation_codec(std::shared_ptr<const SideCodec> inner,
                                                     std::shared_ptr<const SideArray> rotation,
                                                     TurnedReading reading) {
  return std::make_shared<RotationCodec>(std::move(inner), std::move(rotation), reading);
}

}  // namespace kva
