#include <algorithm>
#include <array>
#include <functional>
#include <vector>

#include "kernels/activation.h"
#include "kernels/norm.h"
#include "runtime/model/decoder_math.h"

namespace kva {
namespace {

// Rows of one task in element-wise work.
constexpr int64_t kRowBlock = 16;

struct RowGroup {
  int64_t first = 0;
  int64_t rows = 0;
};

// Adds `rows` rows of one sequence. Products are made group by group: a sequence that brings few rows shares
// a group with others, because there a row's result does not depend on its group (kernels/matmul.h); one that
// brings many has a group of its own. So no sequence's numbers depend on its companions.
void add_rows_of_one(std::vector<RowGroup>& groups, int64_t first, int64_t rows) {
  if (rows == 0) return;
  if (!groups.empty() && groups.back().rows + rows <= kFewRows)
    groups.back().rows += rows;
  else
    groups.push_back({first, rows});
}

std::vector<RowGroup> groups_of(const Batch& batch) {
  std::vector<RowGroup> groups;
  for (const BatchSpan& span : batch.spans) add_rows_of_one(groups, span.first_row, span.tokens);
  return groups;
}

// The same for some of the batch's rows.
std::vector<RowGroup> groups_of(const Batch& batch, std::span<const int64_t> rows) {
  std::vector<RowGroup> groups;
  std::size_t next = 0;
  for (const BatchSpan& span : batch.spans) {
    const std::size_t first = next;
    while (next < rows.size() && rows[next] < span.first_row + span.tokens) ++next;
    add_rows_of_one(groups, static_cast<int64_t>(first), static_cast<int64_t>(next - first));
  }
  return groups;
}

// A matrix whose memory is used again; grows only.
class Scratch {
 public:
  MatView<float> shaped(int64_t rows, int64_t cols) {
    const auto count = static_cast<std::size_t>(rows * cols);
    if (values_.size() < count) values_.resize(count);
    return MatView<float>(values_.data(), rows, cols);
  }
  int64_t bytes() const { return static_cast<int64_t>(values_.capacity() * sizeof(float)); }

 private:
  std::vector<float> values_;
};

DeviceRows as_rows(MatView<float> x) { return {x.data, DType::kF32, x.rows, x.cols, x.stride}; }
MatView<const float> as_view(const DeviceRows& x) {
  return {static_cast<const float*>(x.data), x.rows, x.cols, x.stride};
}

class CpuMath : public DecoderMath {
 public:
  CpuMath(const ModelConfig& config, ThreadPool& pool, bool hardware_bf16)
      : config_(config), pool_(pool), matmul_(pool, hardware_bf16) {}

  MatView<float> room(Room room, int64_t rows, int64_t cols) override {
    return rooms_[static_cast<std::size_t>(room)].shaped(rows, cols);
  }
  void begin(const Batch& batch) override { groups_ = groups_of(batch); }

  void look_up(const WeightView& table, std::span<const int32_t> rows, MatView<float> out) override {
    for (std::size_t r = 0; r < rows.size(); ++r)
      widen_weights(table.row_range(rows[r], 1), out.row(static_cast<int64_t>(r)));
  }
  void add_looked_up(const WeightView& table, std::span<const int32_t> rows, MatView<float> out) override {
    const MatView<float> found = room(Room::kNormed, 1, out.cols);
    for (std::size_t r = 0; r < rows.size(); ++r) {
      widen_weights(table.row_range(rows[r], 1), found.data);
      add_rows(out.row_range(static_cast<int64_t>(r), 1), found);
    }
  }

  DeviceRows input(MatView<float> x, DType) override { return as_rows(x); }
  DeviceRows normalised(MatView<float> x, const NormWeights& norm, DType) override {
    const MatView<float> out = room(Room::kNormed, x.rows, x.cols);
    normalise(x, norm, out);
    return as_rows(out);
  }
  DeviceRows activated(MatView<float> x, MatView<float> up, DType) override {
    by_rows(x.rows, [&](int64_t first, int64_t count) {
      if (up.data)
        activate_gated(config_.activation, x.row_range(first, count), up.row_range(first, count));
      else
        activate(config_.activation, x.row_range(first, count));
    });
    return as_rows(x);
  }

  void multiply(const DeviceRows& x, std::span<const LinearOp> products) override {
    const MatView<const float> input = as_view(x);
    std::vector<LinearOp> part(products.begin(), products.end());
    for (const RowGroup& group : groups_) {
      for (std::size_t i = 0; i < products.size(); ++i)
        part[i].out = products[i].out.row_range(group.first, group.rows);
      matmul_.run(input.row_range(group.first, group.rows), part);
    }
  }
  void add_product(const DeviceRows& input, const Projection& projection, MatView<float> x) override {
    const MatView<float> product = room(Room::kNormed, x.rows, x.cols);
    const LinearOp op{projection.weight, projection.bias, product};
    multiply(input, {&op, 1});
    by_rows(x.rows, [&](int64_t first, int64_t count) {
      add_rows(x.row_range(first, count), product.row_range(first, count));
    });
  }

  void normalise(MatView<float> x, const NormWeights& norm) override { normalise(x, norm, x); }
  void scale(MatView<float> x, float factor) override {
    by_rows(x.rows, [&](int64_t first, int64_t count) {
      for (int64_t r = first; r < first + count; ++r)
        for (int64_t c = 0; c < x.cols; ++c) x.at(r, c) *= factor;
    });
  }

  MatView<float> pick(MatView<float> x, const Batch& batch, std::span<const int64_t> rows) override {
    groups_ = groups_of(batch, rows);
    const MatView<float> picked = room(Room::kNormed, static_cast<int64_t>(rows.size()), x.cols);
    for (int64_t i = 0; i < picked.rows; ++i)
      std::copy_n(x.row(rows[static_cast<std::size_t>(i)]), x.cols, picked.row(i));
    return picked;
  }
  void logits(const DeviceRows& x, const WeightView& head, MatView<float> out) override {
    const LinearOp op{head, nullptr, out};
    multiply(x, {&op, 1});
  }

  void choose(const DeviceRows& x, const WeightView& head, std::span<Sampler* const> samplers,
              std::span<int32_t> tokens) override {
    const MatView<float> scores = room(Room::kScores, x.rows, head.rows);
    logits(x, head, scores);
    for (std::size_t i = 0; i < tokens.size(); ++i)
      tokens[i] =
          samplers[i]->pick({scores.row(static_cast<int64_t>(i)), static_cast<std::size_t>(head.rows)});
  }

  int64_t workspace_bytes() const override {
    int64_t bytes = matmul_.workspace_bytes();
    for (const Scratch& scratch : rooms_) bytes += scratch.bytes();
    return bytes;
  }
  bool rounds_activations(DType weights) const override { return matmul_.rounds_activations(weights); }

 private:
  void by_rows(int64_t rows, const std::function<void(int64_t first, int64_t count)>& body) {
    pool_.parallel_for((rows + kRowBlock - 1) / kRowBlock, [&](int64_t block, int) {
      const int64_t first = block * kRowBlock;
      body(first, std::min(kRowBlock, rows - first));
    });
  }
  void normalise(MatView<const float> x, const NormWeights& norm, MatView<float> out) {
    by_rows(x.rows, [&](int64_t first, int64_t count) {
      const auto rows = x.row_range(first, count);
      const auto target = out.row_range(first, count);
      if (config_.norm == NormKind::kLayerNorm)
        layer_norm(rows, norm.weight, norm.bias, config_.norm_eps, target);
      else
        rms_norm(rows, norm.weight, config_.norm_eps, target);
    });
  }

  const ModelConfig& config_;
  ThreadPool& pool_;
  Matmul matmul_;
  std::vector<RowGroup> groups_;  // of the rows that matrices have now
  std::array<Scratch, kRooms> rooms_;
};

}  // namespace

DecoderMath::~DecoderMath() = default;

std::unique_ptr<DecoderMath> make_cpu_math(const ModelConfig& config, ThreadPool& pool, bool hardware_bf16) {
  return std::make_unique<CpuMath>(config, pool, hardware_bf16);
}

}  // namespace kva
