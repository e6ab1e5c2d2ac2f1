#include "compressors/codecs/residual_codec.h"

#include <fmt/format.h>

#include <algorithm>
#include <vector>

#include "compressors/subspace.h"
#include "kernels/check.h"
#include "kernels/convert.h"
#include "kernels/dense_rows.h"
#include "kernels/fetch.h"

namespace kva {
namespace {

constexpr float kMostF16 = 65504.0f;

class ResidualCodec : public SideCodec {
 public:
  ResidualCodec(int64_t rank, std::shared_ptr<const SideCodec> inner)
      : rank_(rank), inner_(std::move(inner)) {
    KVA_CHECK(!inner_->has_coordinates(), "a residual is added in the coordinates of the page");
  }

  std::string name() const override { return fmt::format("{} + rank {}", inner_->name(), rank_); }

  int64_t bytes(int64_t tokens, int64_t width) const override {
    return factor_bytes(tokens, width) + inner_->bytes(tokens, width);
  }
  int64_t scale_bytes(int64_t tokens, int64_t width) const override {
    return factor_bytes(tokens, width) + inner_->scale_bytes(tokens, width);
  }

  void encode(MatView<const float> rows, const SideData& base, std::byte* payload) const override;

  int64_t decode_scratch(int64_t tokens, int64_t width) const override {
    return std::max(inner_->decode_scratch(tokens, width), 2 * rank(tokens, width) * tokens);
  }
  void decode(const SideData& side, float* scratch, MatView<float> rows) const override;

  int64_t scratch_values(int64_t queries, int64_t tokens, int64_t width) const override {
    return std::max({inner_->scratch_values(queries, tokens, width), queries * rank(tokens, width),
                     decode_scratch(tokens, width)});
  }
  // (queries Bᵀ) Aᵀ on top of the inner codec's.
  void scores(MatView<const float> queries, const SideData& side, float* scratch,
              MatView<float> scores) const override {
    const int64_t tokens = scores.cols, width = queries.cols;
    fetch(side.ahead, factor_bytes(tokens, width));
    inner_->scores(queries, inner_side(side, tokens, width), scratch, scores);
    const MatView<float> coords(scratch, queries.rows, rank(tokens, width));
    if (coords.cols == 0) return;
    dense_scores(queries, right(side, tokens, width), DType::kF16, coords);
    dense_accumulate(coords, side.payload, DType::kF16, scores);
  }
  // (weights A) B on top of the inner codec's.
  void accumulate(MatView<const float> weights, const SideData& side, float* scratch,
                  MatView<float> out) const override {
    const int64_t tokens = weights.cols, width = out.cols;
    fetch(side.ahead, factor_bytes(tokens, width));
    inner_->accumulate(weights, inner_side(side, tokens, width), scratch, out);
    const MatView<float> coords(scratch, weights.rows, rank(tokens, width));
    if (coords.cols == 0) return;
    dense_scores(weights, side.payload, DType::kF16, coords);
    dense_accumulate(coords, right(side, tokens, width), DType::kF16, out);
  }

  std::optional<SideFormat> device_format(int64_t tokens, int64_t width) const override {
    auto format = inner_->device_format(tokens, width);
    // Factors are of the codes alone, which kernels do not tell from the rest.
    if (!format || !is_packed(format->kind) || has_parts(*format) || format->factors_at >= 0)
      return std::nullopt;
    move_offsets(*format, static_cast<int32_t>(factor_bytes(tokens, width)));
    format->rank = static_cast<int32_t>(rank(tokens, width));
    format->left_at = 0;
    format->right_at = static_cast<int32_t>(2 * rank(tokens, width) * tokens);
    return format;
  }
  DeviceArrays device_arrays() const override { return inner_->device_arrays(); }

  CodecSpec spec() const override {
    return {.kind = "residual", .numbers = {{"rank", static_cast<double>(rank_)}}, .inner = {inner_}};
  }
  bool takes(int64_t width, int64_t base_width) const override { return inner_->takes(width, base_width); }
  bool accepts(const SideData& side, int64_t tokens, int64_t width) const override {
    return inner_->accepts(inner_side(side, tokens, width), tokens, width);
  }

 private:
  int64_t rank(int64_t tokens, int64_t width) const { return std::min({rank_, tokens, width}); }
  int64_t factor_bytes(int64_t tokens, int64_t width) const {
    return 2 * rank(tokens, width) * (tokens + width);
  }
  const std::byte* right(const SideData& side, int64_t tokens, int64_t width) const {
    return side.payload + 2 * rank(tokens, width) * tokens;
  }
  SideData inner_side(const SideData& side, int64_t tokens, int64_t width) const {
    return side.part(factor_bytes(tokens, width));
  }

  int64_t rank_;
  std::shared_ptr<const SideCodec> inner_;
};

void ResidualCodec::encode(MatView<const float> rows, const SideData& base, std::byte* payload) const {
  const int64_t tokens = rows.rows, width = rows.cols, r = rank(tokens, width);
  std::byte* codes = payload + factor_bytes(tokens, width);
  inner_->encode(rows, base, codes);
  if (r == 0) return;
  std::vector<float> numbers(static_cast<std::size_t>(tokens * width));
  std::vector<float> scratch(static_cast<std::size_t>(inner_->decode_scratch(tokens, width)));
  const MatView<float> residual(numbers.data(), tokens, width);
  inner_->decode({codes, base.payload, base.base_codec}, scratch.data(), residual);
  for (int64_t t = 0; t < tokens; ++t)
    for (int64_t c = 0; c < width; ++c) residual.at(t, c) = rows.at(t, c) - residual.at(t, c);
  const Subspace subspace = exact_subspace(residual, {.rank = r});
  KVA_CHECK(subspace.rank == r, "as many directions as were asked for");

  std::byte* vectors = payload + 2 * r * tokens;
  from_f32(subspace.basis.data(), DType::kF16, vectors, r * width);
  // A belongs to B as it is stored; A's rows here are its columns.
  std::vector<float> left(static_cast<std::size_t>(r * tokens));
  std::vector<float> by_token(static_cast<std::size_t>(tokens * r));
  dense_scores(residual, vectors, DType::kF16, MatView<float>(by_token.data(), tokens, r));
  for (int64_t t = 0; t < tokens; ++t)
    for (int64_t i = 0; i < r; ++i)
      left[static_cast<std::size_t>(i * tokens + t)] =
          std::clamp(by_token[static_cast<std::size_t>(t * r + i)], -kMostF16, kMostF16);
  from_f32(left.data(), DType::kF16, payload, r * tokens);
}

void ResidualCodec::decode(const SideData& side, float* scratch, MatView<float> rows) const {
  const int64_t tokens = rows.rows, width = rows.cols, r = rank(tokens, width);
  inner_->decode(inner_side(side, tokens, width), scratch, rows);
  if (r == 0) return;
  const MatView<float> columns(scratch, r, tokens);
  const MatView<float> left(scratch + r * tokens, tokens, r);
  to_f32(side.payload, DType::kF16, columns.data, r * tokens);
  for (int64_t t = 0; t < tokens; ++t)
    for (int64_t i = 0; i < r; ++i) left.at(t, i) = columns.at(i, t);
  dense_accumulate(left, right(side, tokens, width), DType::kF16, rows);
}

}  // namespace

std::shared_ptr<const SideCodec> make_residual_codec(int64_t rank, std::shared_ptr<const SideCodec> inner) {
  return std::make_shared<ResidualCodec>(rank, std::move(inner));
}

}  // namespace kva
