#include "compressors/codecs/pq_codec.h"

#include <fmt/format.h>

#include <algorithm>
#include <array>
#include <cmath>
#include <vector>

#include "kernels/check.h"
#include "kernels/convert.h"
#include "kernels/dense_rows.h"
#include "kernels/fetch.h"
#include "kernels/nearest.h"
#include "kernels/packed.h"
#include "runtime/error.h"

namespace kva {
namespace {

constexpr int64_t kMostSubVectors = 1024;  // no head is longer

class PqCodec : public SideCodec {
 public:
  PqCodec(const PqShape& shape, std::shared_ptr<const SideArray> codebook)
      : shape_(shape), codebook_(std::move(codebook)) {
    KVA_CHECK(shape.m >= 1 && shape.m <= kMostSubVectors && shape.width % shape.m == 0, "whole sub-vectors");
    KVA_CHECK(codebook_->bytes() == shape.width * shape.entries() * 2, "a codebook of the shape");
  }

  std::string name() const override { return fmt::format("pq(m={},bits={})", shape_.m, shape_.bits); }

  int64_t bytes(int64_t tokens, int64_t width) const override {
    KVA_CHECK(width == shape_.width, "tokens of the codebook's width");
    return tokens * row_bytes();
  }

  void encode(MatView<const float> rows, const SideData&, std::byte* payload) const override {
    for (int64_t t = 0; t < rows.rows; ++t)
      if (!std::all_of(rows.row(t), rows.row(t) + rows.cols, [](float x) { return std::isfinite(x); }))
        throw InputError(fmt::format("token {}: expected finite numbers, found others", t));
    std::vector<uint8_t> codes(static_cast<std::size_t>(rows.rows * shape_.m));
    for (int64_t j = 0; j < shape_.m; ++j) nearest(rows, j, codes);
    for (int64_t t = 0; t < rows.rows; ++t)
      pack_row(codes.data() + t * shape_.m, shape_.bits, shape_.m, payload + t * row_bytes());
  }

  // One sub-vector's centroids, then the page's codes.
  int64_t decode_scratch(int64_t tokens, int64_t) const override {
    return shape_.sub_width() * shape_.entries() + (tokens * shape_.m + 3) / 4;
  }

  void decode(const SideData& side, float* scratch, MatView<float> rows) const override {
    const int64_t sub = shape_.sub_width();
    const int64_t entries = shape_.entries();
    auto* codes = reinterpret_cast<uint8_t*>(scratch + sub * entries);
    for (int64_t t = 0; t < rows.rows; ++t)
      unpack_row(side.payload + t * row_bytes(), shape_.bits, shape_.m, codes + t * shape_.m);
    for (int64_t j = 0; j < shape_.m; ++j) {
      to_f32(table(j), DType::kF16, scratch, sub * entries);
      for (int64_t t = 0; t < rows.rows; ++t) {
        const uint8_t code = codes[t * shape_.m + j];
        float* target = rows.row(t) + j * sub;
        for (int64_t i = 0; i < sub; ++i) target[i] = scratch[i * entries + code];
      }
    }
  }

  bool has_coordinates() const override { return true; }
  int64_t coordinates(int64_t) const override { return shape_.m * shape_.entries(); }

  void project(MatView<const float> queries, MatView<float> coords) const override {
    const int64_t sub = shape_.sub_width();
    for (int64_t q = 0; q < coords.rows; ++q) std::fill_n(coords.row(q), coords.cols, 0.0f);
    for (int64_t j = 0; j < shape_.m; ++j)
      dense_accumulate(queries.col_range(j * sub, sub), table(j), DType::kF16, of_sub_vector(coords, j));
  }

  void lift(MatView<const float> coords, MatView<float> out) const override {
    const int64_t sub = shape_.sub_width();
    constexpr int64_t kColumns = 4;
    std::array<float, kMaxCodecQueries * kColumns> sums;
    KVA_CHECK(coords.rows <= kMaxCodecQueries, "few query rows");
    for (int64_t j = 0; j < shape_.m; ++j) {
      const auto weights = coords.col_range(j * shape_.entries(), shape_.entries());
      for (int64_t first = 0; first < sub; first += kColumns) {
        const MatView<float> part(sums.data(), coords.rows, std::min(kColumns, sub - first));
        dense_scores(weights, table(j) + first * shape_.entries() * 2, DType::kF16, part);
        for (int64_t q = 0; q < part.rows; ++q)
          for (int64_t i = 0; i < part.cols; ++i) out.at(q, j * sub + first + i) += part.at(q, i);
      }
    }
  }

  int64_t scratch_values(int64_t, int64_t tokens, int64_t width) const override {
    return decode_scratch(tokens, width);
  }

  void scores(MatView<const float> queries, const SideData& side, float*,
              MatView<float> scores) const override {
    std::array<uint8_t, kMostSubVectors> buffer;
    fetch(side.ahead, bytes(scores.cols, shape_.width));
    for (int64_t t = 0; t < scores.cols; ++t) {
      const uint8_t* codes = codes_of(side.payload, t, buffer.data());
      for (int64_t q = 0; q < scores.rows; ++q) scores.at(q, t) = table_sum(queries.row(q), codes);
    }
  }

  void accumulate(MatView<const float> weights, const SideData& side, float*,
                  MatView<float> out) const override {
    std::array<uint8_t, kMostSubVectors> buffer;
    fetch(side.ahead, bytes(weights.cols, shape_.width));
    for (int64_t t = 0; t < weights.cols; ++t) {
      const uint8_t* codes = codes_of(side.payload, t, buffer.data());
      for (int64_t q = 0; q < out.rows; ++q) {
        float* sums = out.row(q);
        for (int64_t j = 0; j < shape_.m; ++j, sums += shape_.entries()) sums[codes[j]] += weights.at(q, t);
      }
    }
  }

  std::optional<SideFormat> device_format(int64_t tokens, int64_t width) const override {
    if (width != shape_.width) return std::nullopt;
    SideFormat format;
    format.kind = SideKind::kCentroids;
    format.width = static_cast<int32_t>(width);
    format.tokens = static_cast<int32_t>(tokens);
    format.parts = static_cast<int32_t>(shape_.m);
    format.code_bits = shape_.bits;
    format.bytes = static_cast<int32_t>(bytes(tokens, width));
    return format;
  }
  bool device_codes() const override { return true; }
  DeviceArrays device_arrays() const override { return {codebook_.get()}; }

  CodecSpec spec() const override {
    return {.kind = "pq",
            .numbers = {{"width", static_cast<double>(shape_.width)},
                        {"m", static_cast<double>(shape_.m)},
                        {"bits", shape_.bits}},
            .arrays = {bytes_of(*codebook_)}};
  }
  bool takes(int64_t width, int64_t base_width) const override {
    return width == shape_.width && base_width == 0;
  }

 private:
  int64_t row_bytes() const { return packed_row_bytes(shape_.bits, shape_.m); }
  const std::byte* table(int64_t j) const {
    return codebook_->data() + j * shape_.sub_width() * shape_.entries() * 2;
  }
  MatView<float> of_sub_vector(MatView<float> coords, int64_t j) const {
    return coords.col_range(j * shape_.entries(), shape_.entries());
  }

  // The token's m codes, in the payload itself where a code is a byte.
  const uint8_t* codes_of(const std::byte* payload, int64_t token, uint8_t* buffer) const {
    const std::byte* row = payload + token * row_bytes();
    if (shape_.bits == 8) return reinterpret_cast<const uint8_t*>(row);
    unpack_row(row, shape_.bits, shape_.m, buffer);
    return buffer;
  }

  // Four sums that do not wait for each other.
  float table_sum(const float* tables, const uint8_t* codes) const {
    const int64_t entries = shape_.entries();
    float sums[4] = {};
    int64_t j = 0;
    for (; j + 4 <= shape_.m; j += 4, tables += 4 * entries)
      for (int64_t i = 0; i < 4; ++i) sums[i] += tables[i * entries + codes[j + i]];
    for (; j < shape_.m; ++j, tables += entries) sums[0] += tables[codes[j]];
    return (sums[0] + sums[1]) + (sums[2] + sums[3]);
  }

  // codes column j: which centroid each row's j-th sub-vector is nearest to.
  void nearest(MatView<const float> rows, int64_t j, std::vector<uint8_t>& codes) const {
    const int64_t sub = shape_.sub_width();
    const int64_t entries = shape_.entries();
    std::vector<float> centroids(static_cast<std::size_t>(sub * entries));
    std::vector<float> biases(static_cast<std::size_t>(entries));
    to_f32(table(j), DType::kF16, centroids.data(), sub * entries);
    for (std::size_t i = 0; i < centroids.size();)
      for (float& bias : biases) {
        bias -= 0.5f * centroids[i] * centroids[i];
        ++i;
      }
    std::vector<int32_t> found(static_cast<std::size_t>(rows.rows));
    std::vector<float> closeness(found.size());
    nearest_columns(rows.col_range(j * sub, sub), MatView<const float>(centroids.data(), sub, entries),
                    biases.data(), found.data(), closeness.data());
    for (std::size_t t = 0; t < found.size(); ++t)
      codes[t * static_cast<std::size_t>(shape_.m) + static_cast<std::size_t>(j)] =
          static_cast<uint8_t>(found[t]);
  }

  PqShape shape_;
  std::shared_ptr<const SideArray> codebook_;
};

}  // namespace

std::shared_ptr<const SideCodec> make_pq_codec(const PqShape& shape,
                                               std::shared_ptr<const SideArray> codebook) {
  return std::make_shared<PqCodec>(shape, std::move(codebook));
}

std::shared_ptr<const SideCodec> make_pq_codec(const PqShape& shape, SideArray codebook) {
  return make_pq_codec(shape, std::make_shared<const SideArray>(std::move(codebook)));
}

}  // namespace kva
