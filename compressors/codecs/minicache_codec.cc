#include "compressors/codecs/minicache_codec.h"

#include <fmt/format.h>

#include <algorithm>
#include <cmath>
#include <cstring>
#include <numeric>
#include <vector>

#include "kernels/convert.h"
#include "kernels/dense_rows.h"
#include "kernels/direction_math.h"
#include "kernels/fetch.h"
#include "runtime/error.h"

namespace kva {
namespace {

class MiniCacheCodec : public SideCodec {
 public:
  explicit MiniCacheCodec(double retain) : retain_(retain) {}

  std::string name() const override { return fmt::format("minicache(retain={})", retain_); }

  int64_t bytes(int64_t tokens, int64_t width) const override {
    return scale_bytes(tokens, width) + retained(tokens) * width * 2;
  }
  int64_t scale_bytes(int64_t tokens, int64_t) const override { return tokens * 2 + retained(tokens) * 2; }

  void encode(MatView<const float> rows, const SideData& base, std::byte* payload) const override {
    const int64_t tokens = rows.rows;
    const std::vector<float> directions = directions_of(base, tokens, rows.cols);
    std::vector<float> lengths(static_cast<std::size_t>(tokens));
    std::vector<double> closeness(static_cast<std::size_t>(tokens));
    for (int64_t t = 0; t < tokens; ++t) {
      const AlongDirection along =
          along_direction([&](int32_t i) { return rows.at(t, i); }, directions.data() + t * rows.cols,
                          static_cast<int32_t>(rows.cols));
      if (!along.can_be_stored())
        throw InputError(fmt::format("token {}: expected finite numbers within f16, found a length of {}", t,
                                     along.length));
      lengths[static_cast<std::size_t>(t)] = along.factor();
      closeness[static_cast<std::size_t>(t)] = along.closeness();
    }
    from_f32(lengths.data(), DType::kF16, payload, tokens);
    std::vector<uint16_t> order(static_cast<std::size_t>(tokens));
    std::iota(order.begin(), order.end(), uint16_t{0});
    std::stable_sort(order.begin(), order.end(),
                     [&](uint16_t a, uint16_t b) { return closeness[a] < closeness[b]; });
    order.resize(static_cast<std::size_t>(retained(tokens)));
    std::sort(order.begin(), order.end());
    std::memcpy(payload + tokens * 2, order.data(), order.size() * 2);
    std::byte* kept = payload + tokens * 2 + static_cast<int64_t>(order.size()) * 2;
    for (const uint16_t t : order) {
      from_f32(rows.row(t), DType::kF16, kept, rows.cols);
      kept += rows.cols * 2;
    }
  }

  int64_t decode_scratch(int64_t tokens, int64_t) const override { return tokens; }

  void decode(const SideData& side, float* scratch, MatView<float> rows) const override {
    side.base_codec->decode(side.base_data(), scratch + rows.rows, rows);
    to_f32(side.payload, DType::kF16, scratch, rows.rows);
    for (int64_t t = 0; t < rows.rows; ++t)
      for (int64_t i = 0; i < rows.cols; ++i) rows.at(t, i) *= scratch[t];
    const Retained kept(*this, side.payload, rows.rows, rows.cols);
    for (int64_t i = 0; i < kept.count; ++i)
      to_f32(kept.row(i), DType::kF16, rows.row(kept.token(i)), rows.cols);
  }

  int64_t scratch_values(int64_t queries, int64_t tokens, int64_t width) const override {
    return tokens + std::max({queries * tokens, queries + width, tokens * width});
  }

  void scores(MatView<const float> queries, const SideData& side, float* scratch,
              MatView<float> scores) const override {
    // Queries come as they are; a base in coordinates of its own is decoded.
    if (side.base_codec->has_coordinates()) return SideCodec::scores(queries, side, scratch, scores);
    const int64_t tokens = scores.cols;
    fetch(side.ahead, bytes(tokens, queries.cols));
    float* lengths = scratch;
    float* product = scratch + tokens;
    side.base_codec->scores(queries, side.base_data(),
                            scratch + scratch_values(queries.rows, tokens, queries.cols), scores);
    to_f32(side.payload, DType::kF16, lengths, tokens);
    for (int64_t q = 0; q < scores.rows; ++q)
      for (int64_t t = 0; t < tokens; ++t) scores.at(q, t) *= lengths[t];
    const Retained kept(*this, side.payload, tokens, queries.cols);
    for (int64_t i = 0; i < kept.count; ++i) {
      dense_scores(queries, kept.row(i), DType::kF16, MatView<float>(product, queries.rows, 1));
      for (int64_t q = 0; q < scores.rows; ++q) scores.at(q, kept.token(i)) = product[q];
    }
  }

  void accumulate(MatView<const float> weights, const SideData& side, float* scratch,
                  MatView<float> out) const override {
    if (side.base_codec->has_coordinates()) return SideCodec::accumulate(weights, side, scratch, out);
    const int64_t tokens = weights.cols;
    fetch(side.ahead, bytes(tokens, out.cols));
    float* lengths = scratch;
    const MatView<float> scaled(scratch + tokens, weights.rows, tokens);
    to_f32(side.payload, DType::kF16, lengths, tokens);
    const Retained kept(*this, side.payload, tokens, out.cols);
    for (int64_t i = 0; i < kept.count; ++i) {
      lengths[kept.token(i)] = 0.0f;
      dense_accumulate(weights.col_range(kept.token(i), 1), kept.row(i), DType::kF16, out);
    }
    for (int64_t q = 0; q < weights.rows; ++q)
      for (int64_t t = 0; t < tokens; ++t) scaled.at(q, t) = weights.at(q, t) * lengths[t];
    side.base_codec->accumulate(scaled, side.base_data(),
                                scratch + scratch_values(weights.rows, tokens, out.cols), out);
  }

  std::optional<SideFormat> device_format_on(const SideFormat& base, int64_t tokens,
                                             int64_t width) const override {
    if (base.hadamard || base.on_basis || base.kind == SideKind::kScaledBase || has_parts(base) ||
        base.width != width)
      return std::nullopt;
    SideFormat format;
    format.kind = SideKind::kScaledBase;
    format.width = static_cast<int32_t>(width);
    format.tokens = static_cast<int32_t>(tokens);
    format.factors_at = 0;
    format.retained = static_cast<int32_t>(retained(tokens));
    format.retained_at = static_cast<int32_t>(tokens * 2);
    format.retained_rows_at = format.retained_at + format.retained * 2;
    format.bytes = static_cast<int32_t>(bytes(tokens, width));
    return format;
  }

  bool device_codes() const override { return true; }

  CodecSpec spec() const override { return {.kind = "minicache", .numbers = {{"retain", retain_}}}; }
  bool takes(int64_t width, int64_t base_width) const override { return base_width == width; }
  bool accepts(const SideData& side, int64_t tokens, int64_t width) const override {
    const Retained kept(*this, side.payload, tokens, width);
    for (int64_t i = 0; i < kept.count; ++i)
      if (kept.token(i) >= tokens) return false;
    return true;
  }

 private:
  int64_t retained(int64_t tokens) const {
    return static_cast<int64_t>(std::ceil(retain_ * static_cast<double>(tokens)));
  }

  struct Retained {
    Retained(const MiniCacheCodec& codec, const std::byte* payload, int64_t tokens, int64_t width)
        : count(codec.retained(tokens)),
          indices(payload + tokens * 2),
          rows(indices + count * 2),
          row_bytes(width * 2) {}
    int64_t token(int64_t i) const {
      uint16_t index;
      std::memcpy(&index, indices + i * 2, sizeof(index));
      return index;
    }
    const std::byte* row(int64_t i) const { return rows + i * row_bytes; }

    int64_t count;
    const std::byte* indices;
    const std::byte* rows;
    int64_t row_bytes;
  };

  static std::vector<float> directions_of(const SideData& base, int64_t tokens, int64_t width) {
    std::vector<float> rows(static_cast<std::size_t>(tokens * width));
    std::vector<float> scratch(static_cast<std::size_t>(base.base_codec->decode_scratch(tokens, width)));
    base.base_codec->decode(base.base_data(), scratch.data(), MatView<float>(rows.data(), tokens, width));
    return rows;
  }

  double retain_;
};

}  // namespace

std::shared_ptr<const SideCodec> make_minicache_codec(double retain) {
  return std::make_shared<MiniCacheCodec>(retain);
}

}  // namespace kva
