#include <algorithm>
#include <array>
#include <vector>

#include "kernels/check.h"
#include "kernels/device_ops.h"
#include "runtime/model/decoder_math.h"

namespace kva {
namespace {

// Device memory that is used again; grows only. What was launched on the old memory comes first.
class Scratch {
 public:
  void* of(const std::shared_ptr<Backend>& backend, int64_t bytes) {
    if (buffer_.bytes() < bytes) {
      buffer_ = Buffer();
      buffer_ = Buffer(*backend, bytes, "activations");
    }
    return buffer_.data();
  }
  int64_t bytes() const { return buffer_.held_bytes(); }

 private:
  Buffer buffer_;
};

DeviceRows as_rows(MatView<float> x) { return {x.data, DType::kF32, x.rows, x.cols, x.stride}; }

class DeviceMath : public DecoderMath {
 public:
  DeviceMath(const ModelConfig& config, std::shared_ptr<Backend> backend)
      : config_(config), backend_(std::move(backend)), device_(*backend_->device()) {}

  MatView<float> room(Room room, int64_t rows, int64_t cols) override {
    const int64_t bytes = rows * cols * static_cast<int64_t>(sizeof(float));
    return {static_cast<float*>(rooms_[static_cast<std::size_t>(room)].of(backend_, bytes)), rows, cols};
  }
  void begin(const Batch&) override {}

  void look_up(const WeightView& table, std::span<const int32_t> rows, MatView<float> out) override {
    gather(table_rows(table), table.scales, rows, as_rows(out), false);
  }
  void add_looked_up(const WeightView& table, std::span<const int32_t> rows, MatView<float> out) override {
    gather(table_rows(table), table.scales, rows, as_rows(out), true);
  }

  DeviceRows input(MatView<float> x, DType type) override {
    if (type == DType::kF32) return as_rows(x);
    const DeviceRows out = input_rows(x.rows, x.cols, type);
    device_.cast({as_rows(x), out});
    return out;
  }
  DeviceRows normalised(MatView<float> x, const NormWeights& norm, DType type) override {
    const DeviceRows out = input_rows(x.rows, x.cols, type);
    normalise(x, norm, out);
    return out;
  }
  DeviceRows activated(MatView<float> x, MatView<float> up, DType type) override {
    const DeviceRows out = input_rows(x.rows, x.cols, type);
    device_.activate({config_.activation, as_rows(x), up.data ? as_rows(up) : DeviceRows(), out});
    return out;
  }

  void multiply(const DeviceRows& x, std::span<const LinearOp> products) override {
    for (const LinearOp& op : products) device_.multiply({x, op.weights, op.bias, as_rows(op.out)});
  }
  void add_product(const DeviceRows& input, const Projection& projection, MatView<float> x) override {
    device_.multiply({input, projection.weight, projection.bias, as_rows(x), true});
  }

  void normalise(MatView<float> x, const NormWeights& norm) override { normalise(x, norm, as_rows(x)); }
  void scale(MatView<float> x, float factor) override { device_.add({as_rows(x), {}, factor}); }

  MatView<float> pick(MatView<float> x, const Batch&, std::span<const int64_t> rows) override {
    const MatView<float> picked = room(Room::kNormed, static_cast<int64_t>(rows.size()), x.cols);
    const std::vector<int32_t> indices(rows.begin(), rows.end());
    gather(as_rows(x), nullptr, indices, as_rows(picked), false);
    return picked;
  }
  void logits(const DeviceRows& x, const WeightView& head, MatView<float> out) override {
    const MatView<float> product = scores(x, head);
    const int64_t row_bytes = out.cols * static_cast<int64_t>(sizeof(float));
    if (out.stride == out.cols) return backend_->download(out.data, product.data, out.rows * row_bytes);
    for (int64_t r = 0; r < out.rows; ++r) backend_->download(out.row(r), product.row(r), row_bytes);
  }

  void choose(const DeviceRows& x, const WeightView& head, std::span<Sampler* const> samplers,
              std::span<int32_t> tokens) override {
    const MatView<float> product = scores(x, head);
    const auto bytes = static_cast<int64_t>(tokens.size_bytes());
    auto* chosen = static_cast<int32_t*>(indices_.of(backend_, bytes));
    for (std::size_t i = 0; i < tokens.size(); ++i) {
      const TokenChoice choice = samplers[i]->next();
      // A top-k beyond the vocabulary is all of it.
      device_.choose({.logits = product.row(static_cast<int64_t>(i)),
                      .vocabulary = static_cast<int32_t>(head.rows),
                      .top_k = static_cast<int32_t>(std::min(choice.top_k, head.rows)),
                      .top_p = choice.top_p,
                      .temperature = choice.temperature,
                      .uniform = choice.uniform},
                     chosen + i);
    }
    backend_->download(tokens.data(), chosen, bytes);
    for (const int32_t token : tokens)
      if (token < 0) fail_at_logit(-1 - int64_t{token});
  }

  int64_t workspace_bytes() const override {
    int64_t bytes = device_.workspace_bytes() + input_.bytes() + indices_.bytes();
    for (const Scratch& scratch : rooms_) bytes += scratch.bytes();
    return bytes;
  }
  bool rounds_activations(DType weights) const override { return weights != DType::kF32; }

 private:
  MatView<float> scores(const DeviceRows& x, const WeightView& head) {
    const MatView<float> product = room(Room::kScores, x.rows, head.rows);
    device_.multiply({x, head, nullptr, as_rows(product)});
    return product;
  }
  DeviceRows input_rows(int64_t rows, int64_t cols, DType type) {
    return {input_.of(backend_, rows * cols * dtype_bytes(type)), type, rows, cols, cols};
  }
  static DeviceRows table_rows(const WeightView& table) {
    // DeviceRows has one kind of pointer; a gather only reads its table.
    return {const_cast<void*>(table.data), table.dtype, table.rows, table.cols, table.cols};
  }
  void gather(const DeviceRows& table, const float* scales, std::span<const int32_t> rows,
              const DeviceRows& out, bool adds) {
    const auto bytes = static_cast<int64_t>(rows.size_bytes());
    auto* indices = static_cast<int32_t*>(indices_.of(backend_, bytes));
    backend_->upload(indices, rows.data(), bytes);
    device_.gather({table, indices, out, adds, scales});
  }
  void normalise(MatView<float> x, const NormWeights& norm, const DeviceRows& out) {
    device_.normalise(
        {as_rows(x), out, norm.weight, norm.bias, config_.norm_eps, config_.norm == NormKind::kLayerNorm});
  }

  const ModelConfig& config_;
  std::shared_ptr<Backend> backend_;
  DeviceOps& device_;
  std::array<Scratch, kRooms> rooms_;
  Scratch input_;    // of products, in their weights' type
  Scratch indices_;  // of gathers, and of tokens chosen
};

}  // namespace

std::unique_ptr<DecoderMath> make_device_math(const ModelConfig& config, std::shared_ptr<Backend> backend) {
  KVA_CHECK(backend->device() != nullptr, "a backend with a device");
  return std::make_unique<DeviceMath>(config, std::move(backend));
}

}  // namespace kva
