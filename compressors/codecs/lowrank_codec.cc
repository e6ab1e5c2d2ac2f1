#include "compressors/codecs/lowrank_codec.h"

#include <fmt/format.h>

#include <algorithm>
#include <cmath>
#include <cstring>

#include "kernels/attention_work.h"
#include "kernels/check.h"
#include "kernels/convert.h"
#include "kernels/dense_rows.h"
#include "kernels/tile_product.h"
#include "runtime/error.h"

namespace kva {
namespace {

constexpr float kMostF16 = 65504.0f;

double squared_length(MatView<const float> rows) {
  double sum = 0.0;
  for (int64_t r = 0; r < rows.rows; ++r)
    for (int64_t c = 0; c < rows.cols; ++c) sum += double{rows.at(r, c)} * rows.at(r, c);
  return sum;
}

// Reads a part of a basis: what a cell does with coefficients, wherever they are stored.
class LowRankPart {
 public:
  LowRankPart(std::shared_ptr<const LowRankBasis> basis, int64_t cell)
      : basis_(std::move(basis)), part_(basis_->part(cell)) {}

  const LowRankBasis& basis() const { return *basis_; }
  CodecSpec spec(const char* kind, int64_t cell) const {
    return {.kind = kind,
            .numbers = {{"rank", static_cast<double>(rank())},
                        {"cells", static_cast<double>(basis_->cells())},
                        {"cell", static_cast<double>(cell)}},
            .arrays = {basis_->stored()}};
  }
  int64_t rank() const { return basis_->rank(); }

  // coords row = B queries row.
  void project(MatView<const float> queries, MatView<float> coords) const {
    dense_scores(queries, part_, DType::kF16, coords);
  }
  // out row += coords row B.
  void lift(MatView<const float> coords, MatView<float> out) const {
    dense_accumulate(coords, part_, DType::kF16, out);
  }
  // Coefficients read into `scratch` by `read`, times B. scratch: decode_scratch() floats, `read` gets those
  // behind.
  template <typename Read>
  void decode(float* scratch, MatView<float> rows, const Read& read) const {
    const MatView<float> coords(scratch, rows.rows, rank());
    const MatView<float> part(scratch + rows.rows * rank(), rank(), rows.cols);
    read(part.data + rank() * rows.cols, coords);
    to_f32(part_, DType::kF16, part.data, rank() * rows.cols);
    for (int64_t r = 0; r < rows.rows; ++r) std::fill_n(rows.row(r), rows.cols, 0.0f);
    tile_product_add(coords, part, rows);
  }
  int64_t decode_scratch(int64_t tokens) const { return rank() * (tokens + basis_->width()); }

  // How a device reads coefficients that it would read as `format`.
  std::optional<SideFormat> on_basis(SideFormat format) const {
    if (format.on_basis || format.kind == SideKind::kScaledBase || format.width != rank() ||
        (has_parts(format) && !reads_units(format.width)))
      return std::nullopt;
    format.on_basis = true;
    return format;
  }
  DeviceBasis device_basis() const { return {&basis_->array(), part_ - basis_->array().data()}; }

 private:
  std::shared_ptr<const LowRankBasis> basis_;
  const std::byte* part_;
};

class LowRankCodec : public SideCodec {
 public:
  LowRankCodec(std::shared_ptr<const LowRankBasis> basis, std::shared_ptr<const SideCodec> inner)
      : part_(std::move(basis), 0), inner_(std::move(inner)) {}

  std::string name() const override {
    return fmt::format("lowrank(rank={}) | {}", part_.rank(), inner_->name());
  }

  int64_t bytes(int64_t tokens, int64_t) const override { return inner_->bytes(tokens, part_.rank()); }
  int64_t scale_bytes(int64_t tokens, int64_t) const override {
    return inner_->scale_bytes(tokens, part_.rank());
  }

  void encode(MatView<const float> rows, const SideData& base, std::byte* payload) const override {
    std::vector<float> values(static_cast<std::size_t>(rows.rows * part_.rank()));
    const MatView<float> coords(values.data(), rows.rows, part_.rank());
    part_.basis().coefficients(rows, coords);
    inner_->encode(coords, base, payload);
  }

  int64_t decode_scratch(int64_t tokens, int64_t) const override {
    return part_.decode_scratch(tokens) + inner_->decode_scratch(tokens, part_.rank());
  }
  void decode(const SideData& side, float* scratch, MatView<float> rows) const override {
    part_.decode(scratch, rows,
                 [&](float* behind, MatView<float> coords) { inner_->decode(side, behind, coords); });
  }

  int64_t scratch_values(int64_t queries, int64_t tokens, int64_t width) const override {
    return std::max(decode_scratch(tokens, width), inner_->scratch_values(queries, tokens, part_.rank()));
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
  int64_t coordinates(int64_t) const override {
    return inner_->has_coordinates() ? inner_->coordinates(part_.rank()) : part_.rank();
  }
  void project(MatView<const float> queries, MatView<float> coords) const override {
    if (!inner_->has_coordinates()) return part_.project(queries, coords);
    std::vector<float> values(static_cast<std::size_t>(queries.rows * part_.rank()));
    const MatView<float> own(values.data(), queries.rows, part_.rank());
    part_.project(queries, own);
    inner_->project(own, coords);
  }
  void lift(MatView<const float> coords, MatView<float> out) const override {
    if (!inner_->has_coordinates()) return part_.lift(coords, out);
    std::vector<float> values(static_cast<std::size_t>(coords.rows * part_.rank()));
    const MatView<float> own(values.data(), coords.rows, part_.rank());
    inner_->lift(coords, own);
    part_.lift(own, out);
  }

  std::optional<SideFormat> device_format(int64_t tokens, int64_t) const override {
    const auto inner = inner_->device_format(tokens, part_.rank());
    return inner ? part_.on_basis(*inner) : inner;
  }
  bool device_codes() const override {
    // Where the longest page is rows, any is.
    return inner_->device_codes() || holds_rows(inner_->device_format(kMostPageTokens, part_.rank()));
  }
  const RowProjection* projection() const override { return &part_.basis(); }
  DeviceArrays device_arrays() const override { return inner_->device_arrays(); }
  DeviceBasis device_basis() const override { return part_.device_basis(); }

  CodecSpec spec() const override {
    CodecSpec spec = part_.spec("lowrank", 0);
    spec.inner = {inner_};
    return spec;
  }
  bool takes(int64_t width, int64_t base_width) const override {
    return width == part_.basis().width() && inner_->takes(part_.rank(), base_width);
  }
  bool accepts(const SideData& side, int64_t tokens, int64_t) const override {
    return inner_->accepts(side, tokens, part_.rank());
  }

 private:
  LowRankPart part_;
  std::shared_ptr<const SideCodec> inner_;
};

class LowRankPartCodec : public SideCodec {
 public:
  LowRankPartCodec(std::shared_ptr<const LowRankBasis> basis, int64_t cell)
      : part_(std::move(basis), cell), cell_(cell) {}

  std::string name() const override {
    return fmt::format("lowrank(rank={}) of {} heads", part_.rank(), part_.basis().cells());
  }

  int64_t bytes(int64_t, int64_t) const override { return 0; }
  void encode(MatView<const float>, const SideData&, std::byte*) const override {}

  int64_t decode_scratch(int64_t tokens, int64_t) const override { return part_.decode_scratch(tokens); }
  void decode(const SideData& side, float* scratch, MatView<float> rows) const override {
    part_.decode(scratch, rows, [&](float* behind, MatView<float> coords) {
      side.base_codec->decode(side.base_data(), behind, coords);
    });
  }

  int64_t scratch_values(int64_t, int64_t tokens, int64_t) const override {
    return part_.decode_scratch(tokens);
  }
  void scores(MatView<const float> queries, const SideData& side, float* scratch,
              MatView<float> scores) const override {
    float* behind = scratch + part_.decode_scratch(scores.cols);
    // Queries come in the basis's coordinates; a base with others of its own is read back instead.
    if (!side.base_codec->has_coordinates())
      return side.base_codec->scores(queries, side.base_data(), behind, scores);
    const MatView<float> coords(scratch, scores.cols, part_.rank());
    side.base_codec->decode(side.base_data(), behind, coords);
    dense_scores(queries, coords.data, DType::kF32, scores);
  }
  void accumulate(MatView<const float> weights, const SideData& side, float* scratch,
                  MatView<float> out) const override {
    float* behind = scratch + part_.decode_scratch(weights.cols);
    if (!side.base_codec->has_coordinates())
      return side.base_codec->accumulate(weights, side.base_data(), behind, out);
    const MatView<float> coords(scratch, weights.cols, part_.rank());
    side.base_codec->decode(side.base_data(), behind, coords);
    dense_accumulate(weights, coords.data, DType::kF32, out);
  }

  bool has_coordinates() const override { return true; }
  int64_t coordinates(int64_t) const override { return part_.rank(); }
  void project(MatView<const float> queries, MatView<float> coords) const override {
    part_.project(queries, coords);
  }
  void lift(MatView<const float> coords, MatView<float> out) const override { part_.lift(coords, out); }

  std::optional<SideFormat> device_format_on(const SideFormat& base, int64_t, int64_t) const override {
    return part_.on_basis(base);
  }
  DeviceBasis device_basis() const override { return part_.device_basis(); }

  CodecSpec spec() const override { return part_.spec("lowrank part", cell_); }
  bool takes(int64_t width, int64_t base_width) const override {
    return width == part_.basis().width() && base_width == part_.rank();
  }

 private:
  LowRankPart part_;
  int64_t cell_;
};

}  // namespace

LowRankBasis::LowRankBasis(std::shared_ptr<SideMemory> memory, MatView<const float> vectors, int64_t cells)
    : rank_(vectors.rows),
      cells_(cells),
      width_(vectors.cols / cells),
      memory_(std::make_shared<const SideArray>(std::move(memory), vectors.rows * vectors.cols * 2,
                                                "low-rank basis")) {
  KVA_CHECK(rank_ > 0 && width_ * cells == vectors.cols, "a basis of whole cells");
  std::byte* target = memory_->data();
  for (int64_t cell = 0; cell < cells_; ++cell)
    for (int64_t r = 0; r < rank_; ++r, target += width_ * 2)
      from_f32(vectors.row(r) + cell * width_, DType::kF16, target, width_);
}

LowRankBasis::LowRankBasis(std::shared_ptr<const SideArray> stored, int64_t rank, int64_t cells)
    : rank_(rank), cells_(cells), width_(stored->bytes() / (rank * cells * 2)), memory_(std::move(stored)) {
  KVA_CHECK(rank_ > 0 && width_ > 0 && rank_ * cells_ * width_ * 2 == bytes(), "a basis of whole cells");
}

const std::byte* LowRankBasis::part(int64_t cell) const {
  KVA_CHECK(cell >= 0 && cell < cells_, "a cell of the basis");
  return memory_->data() + cell * rank_ * width_ * 2;
}

bool LowRankBasis::same_numbers(const LowRankBasis& other) const {
  return rank_ == other.rank_ && cells_ == other.cells_ && width_ == other.width_ &&
         std::memcmp(memory_->data(), other.memory_->data(), static_cast<std::size_t>(bytes())) == 0;
}

std::vector<float> LowRankBasis::joined() const {
  std::vector<float> vectors(static_cast<std::size_t>(rank_ * cells_ * width_));
  for (int64_t cell = 0; cell < cells_; ++cell)
    for (int64_t r = 0; r < rank_; ++r)
      to_f32(part(cell) + r * width_ * 2, DType::kF16, vectors.data() + (r * cells_ + cell) * width_, width_);
  return vectors;
}

double LowRankBasis::coefficients(MatView<const float> rows, MatView<float> coefficients) const {
  KVA_CHECK(rows.cols == cells_ * width_ && coefficients.cols == rank_ && coefficients.rows == rows.rows,
            "rows of the basis's cells");
  const std::vector<float> vectors = joined();
  const MatView<const float> basis(vectors.data(), rank_, rows.cols);
  tile_product_transposed(rows, basis, coefficients);
  // -(x Bᵀ) B + x, and the coefficients of that on top.
  std::vector<float> negative(static_cast<std::size_t>(rows.rows * rank_));
  std::vector<float> rest(static_cast<std::size_t>(rows.rows * rows.cols));
  const MatView<float> correction(negative.data(), rows.rows, rank_);
  const MatView<float> residual(rest.data(), rows.rows, rows.cols);
  for (int64_t t = 0; t < rows.rows; ++t) {
    std::copy_n(rows.row(t), rows.cols, residual.row(t));
    for (int64_t r = 0; r < rank_; ++r) correction.at(t, r) = -coefficients.at(t, r);
  }
  tile_product_add(correction, basis, residual);
  const double squared = squared_length(residual);
  tile_product_transposed(residual, basis, correction);
  for (int64_t t = 0; t < rows.rows; ++t) {
    for (int64_t r = 0; r < rank_; ++r) {
      float& value = coefficients.at(t, r);
      value += correction.at(t, r);
      if (!(std::abs(value) <= kMostF16))
        throw InputError(fmt::format(
            "token {}: expected finite numbers with coefficients within f16, found a coefficient of {}", t,
            value));
    }
  }
  return squared;
}

double LowRankBasis::relative_residual(MatView<const float> rows) const {
  std::vector<float> unused(static_cast<std::size_t>(rows.rows * rank_));
  const double residual = coefficients(rows, MatView<float>(unused.data(), rows.rows, rank_));
  const double length = squared_length(rows);
  return length > 0.0 ? std::sqrt(residual / length) : 0.0;
}

std::shared_ptr<const SideCodec> LowRankBasis::codec(std::shared_ptr<const SideCodec> inner) const {
  KVA_CHECK(cells_ == 1, "cells of a group share their coefficients");
  if (!inner->takes(rank_, 0))
    throw InputError(
        fmt::format("{} cannot hold rows of {} coefficients, as lowrank has them here; use quant "
                    "behind lowrank, or another rank",
                    inner->name(), rank_));
  const std::lock_guard<std::mutex> lock(mutex_);
  std::weak_ptr<const SideCodec>& known = codecs_[inner.get()];
  std::shared_ptr<const SideCodec> codec = known.lock();
  if (codec) return codec;
  codec = std::make_shared<LowRankCodec>(shared_from_this(), std::move(inner));
  known = codec;
  // An inner codec that is gone can have left its address to another: its entry has expired with it.
  std::erase_if(codecs_, [](const auto& entry) { return entry.second.expired(); });
  return codec;
}

std::shared_ptr<const SideCodec> LowRankBasis::part_codec(int64_t cell) const {
  const std::lock_guard<std::mutex> lock(mutex_);
  std::weak_ptr<const SideCodec>& known = codecs_[part(cell)];
  std::shared_ptr<const SideCodec> codec = known.lock();
  if (!codec) {
    codec = std::make_shared<LowRankPartCodec>(shared_from_this(), cell);
    known = codec;
  }
  return codec;
}

}  // namespace kva
