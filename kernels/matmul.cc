#include "kernels/matmul.h"

#include <algorithm>
#include <vector>

#include "kernels/convert.h"
#include "kernels/gemv.h"
#include "kernels/onednn_product.h"

namespace kva {
namespace {

// Tiles of the many-row path: small enough to share out a 576-wide product, large enough for oneDNN's best
// speed (measured: 64 columns lose a tenth against 128 and 192).
constexpr int64_t kTileRows = 256;
constexpr int64_t kTileCols = 128;
// The few-row path hands out some blocks of weights to each thread, of at least and at most so many bytes:
// long runs are read faster, short ones are shared out evenly. Each result is a sum of its own, so it does
// not depend on where blocks end.
constexpr int64_t kBlocksPerThread = 3;
constexpr int64_t kLeastBlockBytes = 64 << 10;
constexpr int64_t kMostBlockBytes = 512 << 10;
// Activations are rounded in blocks of this many rows.
constexpr int64_t kRoundRows = 16;

int64_t ceil_div(int64_t a, int64_t b) { return (a + b - 1) / b; }

// One worker's own: nothing here is shared between threads.
struct Worker {
  OnednnProducts products;
  std::vector<float> widened;  // a block of weights in f32
};

struct Tile {
  const LinearOp* op;
  int64_t first_row, rows, first_col, cols;
};

}  // namespace

struct Matmul::Impl {
  explicit Impl(ThreadPool& pool_) : pool(pool_) {}
  ThreadPool& pool;
  bool bf16 = false;
  std::vector<Worker> workers;
  std::vector<uint16_t> rounded;  // the input in bf16

  void few_rows(MatView<const float> x, std::span<const LinearOp> ops);
  void many_rows(MatView<const float> x, std::span<const LinearOp> ops);
  void round(MatView<const float> x);
  void multiply(const Tile& tile, MatView<const float> x, Worker& worker);
};

Matmul::Matmul(ThreadPool& pool, bool hardware_bf16) : impl_(std::make_unique<Impl>(pool)) {
  impl_->bf16 = hardware_bf16 && multiplies_bf16();
  impl_->workers.resize(static_cast<std::size_t>(pool.threads()));
}

Matmul::~Matmul() = default;

bool Matmul::rounds_activations(DType weights) const { return weights == DType::kBF16 && impl_->bf16; }

int64_t Matmul::workspace_bytes() const {
  std::size_t bytes = impl_->rounded.capacity() * sizeof(uint16_t);
  for (const Worker& worker : impl_->workers) bytes += worker.widened.capacity() * sizeof(float);
  return static_cast<int64_t>(bytes);
}

void Matmul::run(MatView<const float> x, std::span<const LinearOp> ops) {
  for (const LinearOp& op : ops)
    KVA_CHECK(op.weights.cols == x.cols && op.out.rows == x.rows && op.out.cols == op.weights.rows,
              "product of unfitting shapes");
  if (x.rows == 0) return;
  if (x.rows <= kFewRows) return impl_->few_rows(x, ops);
  impl_->many_rows(x, ops);
}

void Matmul::Impl::few_rows(MatView<const float> x, std::span<const LinearOp> ops) {
  int64_t bytes = 0;
  for (const LinearOp& op : ops) bytes += op.weights.bytes();
  const int64_t block_bytes =
      std::clamp(bytes / (kBlocksPerThread * pool.threads()), kLeastBlockBytes, kMostBlockBytes);
  std::vector<Tile> tiles;
  for (const LinearOp& op : ops) {
    const int64_t row_bytes = std::max<int64_t>(1, op.weights.row_bytes());
    // A multiple of the kernel's four outputs.
    const int64_t step = std::max<int64_t>(4, block_bytes / row_bytes / 4 * 4);
    for (int64_t first = 0; first < op.weights.rows; first += step)
      tiles.push_back({&op, 0, x.rows, first, std::min(step, op.weights.rows - first)});
  }
  pool.parallel_for(static_cast<int64_t>(tiles.size()), [&](int64_t index, int) {
    const Tile& tile = tiles[static_cast<std::size_t>(index)];
    few_rows_product(x, *tile.op, tile.first_col, tile.cols);
  });
}

void Matmul::Impl::many_rows(MatView<const float> x, std::span<const LinearOp> ops) {
  const bool any_bf16 = std::any_of(
      ops.begin(), ops.end(), [&](const LinearOp& op) { return bf16 && op.weights.dtype == DType::kBF16; });
  if (any_bf16) round(x);
  std::vector<Tile> tiles;
  for (int64_t row = 0; row < x.rows; row += kTileRows)
    for (const LinearOp& op : ops)
      for (int64_t col = 0; col < op.weights.rows; col += kTileCols)
        tiles.push_back(
            {&op, row, std::min(kTileRows, x.rows - row), col, std::min(kTileCols, op.weights.rows - col)});
  pool.parallel_for(static_cast<int64_t>(tiles.size()), [&](int64_t index, int worker) {
    multiply(tiles[static_cast<std::size_t>(index)], x, workers[static_cast<std::size_t>(worker)]);
  });
}

void Matmul::Impl::round(MatView<const float> x) {
  rounded.resize(static_cast<std::size_t>(x.rows * x.cols));
  pool.parallel_for(ceil_div(x.rows, kRoundRows), [&](int64_t index, int) {
    const int64_t end = std::min(x.rows, (index + 1) * kRoundRows);
    for (int64_t r = index * kRoundRows; r < end; ++r)
      from_f32(x.row(r), DType::kBF16, rounded.data() + r * x.cols, x.cols);
  });
}

void Matmul::Impl::multiply(const Tile& tile, MatView<const float> x, Worker& worker) {
  const LinearOp& op = *tile.op;
  const WeightView block = op.weights.row_range(tile.first_col, tile.cols);
  const bool as_bf16 = bf16 && block.dtype == DType::kBF16;
  const void* weights = block.data;
  if (block.scales || (!as_bf16 && block.dtype != DType::kF32)) {
    worker.widened.resize(static_cast<std::size_t>(kTileCols * block.cols));
    widen_weights(block, worker.widened.data());
    weights = worker.widened.data();
  }
  const ProductForm form{tile.rows,
                         tile.cols,
                         x.cols,
                         as_bf16 ? x.cols : x.stride,
                         x.cols,
                         op.out.stride,
                         as_bf16 ? DType::kBF16 : DType::kF32,
                         op.bias != nullptr};
  const void* input = as_bf16 ? static_cast<const void*>(rounded.data() + tile.first_row * x.cols)
                              : static_cast<const void*>(x.row(tile.first_row));
  worker.products.run(form, input, weights, op.bias ? op.bias + tile.first_col : nullptr,
                      op.out.row(tile.first_row) + tile.first_col);
}

}  // namespace kva
