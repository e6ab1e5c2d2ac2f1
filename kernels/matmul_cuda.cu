#include <cublasLt.h>

#include <algorithm>
#include <map>
#include <tuple>
#include <vector>

#include "kernels/check.h"
#include "kernels/cuda_check.cuh"
#include "kernels/decoder_cuda.h"
#include "kernels/device_buffer.h"
#include "kernels/matmul_cuda.h"

namespace kva {
namespace {

constexpr std::size_t kWorkspaceBytes = std::size_t{32} << 20;
// Rows of matrices begin at multiples of so many bytes (kernels/device_product.h).
constexpr uint32_t kProductAlignment = 16;
constexpr int64_t kTileWeights = int64_t{4} << 20;  // widened at a time

cudaDataType_t cuda_type(DType type) {
  switch (type) {
    case DType::kF16: return CUDA_R_16F;
    case DType::kBF16: return CUDA_R_16BF;
    default: return CUDA_R_32F;
  }
}

// A cuBLASLt object with its destructor.
template <typename T, cublasStatus_t (*destroy)(T)>
class Owned {
 public:
  Owned() = default;
  ~Owned() {
    if (object_) (void)destroy(object_);
  }
  Owned(const Owned&) = delete;
  Owned& operator=(const Owned&) = delete;
  T* address() { return &object_; }
  T get() const { return object_; }

 private:
  T object_ = nullptr;
};

using Layout = Owned<cublasLtMatrixLayout_t, cublasLtMatrixLayoutDestroy>;

// What cuBLASLt needs to know of one shape. Its matrices are column-major, so outᵀ = weights · xᵀ: the
// weights, rows of inputs, are its transposed left side.
class Shape {
 public:
  Shape(cublasLtHandle_t handle, const DeviceProduct& product) {
    const DType type = product.weights.dtype;
    const auto compute = type == DType::kF32 ? CUBLAS_COMPUTE_32F_PEDANTIC : CUBLAS_COMPUTE_32F;
    cublas_check(cublasLtMatmulDescCreate(operation_.address(), compute, CUDA_R_32F), "describing a product");
    set(CUBLASLT_MATMUL_DESC_TRANSA, CUBLAS_OP_T);
    if (product.bias) set(CUBLASLT_MATMUL_DESC_EPILOGUE, CUBLASLT_EPILOGUE_BIAS);
    const auto inputs = static_cast<uint64_t>(product.weights.cols);
    const auto outputs = static_cast<uint64_t>(product.weights.rows);
    const auto rows = static_cast<uint64_t>(product.x.rows);
    lay_out(weights_, type, inputs, outputs, product.weights.cols);
    lay_out(x_, type, inputs, rows, product.x.stride);
    lay_out(out_, DType::kF32, outputs, rows, product.out.stride);
    choose(handle);
  }

  void run(cublasLtHandle_t handle, const DeviceProduct& product, void* workspace, cudaStream_t stream) {
    const float one = 1.0f;
    const float kept = product.adds ? 1.0f : 0.0f;
    if (product.bias) set(CUBLASLT_MATMUL_DESC_BIAS_POINTER, product.bias);
    cublas_check(
        cublasLtMatmul(handle, operation_.get(), &one, product.weights.data, weights_.get(), product.x.data,
                       x_.get(), &kept, product.out.data, out_.get(), product.out.data, out_.get(),
                       &algorithm_, workspace, kWorkspaceBytes, stream),
        "multiplying");
  }

 private:
  template <typename T>
  void set(cublasLtMatmulDescAttributes_t attribute, const T& value) {
    cublas_check(cublasLtMatmulDescSetAttribute(operation_.get(), attribute, &value, sizeof value),
                 "describing a product");
  }
  static void lay_out(Layout& layout, DType type, uint64_t rows, uint64_t cols, int64_t stride) {
    cublas_check(cublasLtMatrixLayoutCreate(layout.address(), cuda_type(type), rows, cols, stride),
                 "describing a matrix");
  }

  void choose(cublasLtHandle_t handle) {
    Owned<cublasLtMatmulPreference_t, cublasLtMatmulPreferenceDestroy> preference;
    cublas_check(cublasLtMatmulPreferenceCreate(preference.address()), "describing a workspace");
    cublas_check(
        cublasLtMatmulPreferenceSetAttribute(preference.get(), CUBLASLT_MATMUL_PREF_MAX_WORKSPACE_BYTES,
                                             &kWorkspaceBytes, sizeof kWorkspaceBytes),
        "describing a workspace");
    // Left alone, an algorithm may want all matrices at multiples of 256 bytes.
    for (const auto alignment :
         {CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_A_BYTES, CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_B_BYTES,
          CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_C_BYTES, CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_D_BYTES})
      cublas_check(cublasLtMatmulPreferenceSetAttribute(preference.get(), alignment, &kProductAlignment,
                                                        sizeof kProductAlignment),
                   "describing matrices");
    cublasLtMatmulHeuristicResult_t result{};
    int found = 0;
    cublas_check(cublasLtMatmulAlgoGetHeuristic(handle, operation_.get(), weights_.get(), x_.get(),
                                                out_.get(), out_.get(), preference.get(), 1, &result, &found),
                 "choosing an algorithm");
    if (found == 0) cublas_check(CUBLAS_STATUS_NOT_SUPPORTED, "choosing an algorithm");
    algorithm_ = result.algo;
  }

  Owned<cublasLtMatmulDesc_t, cublasLtMatmulDescDestroy> operation_;
  Layout weights_;
  Layout x_;
  Layout out_;
  cublasLtMatmulAlgo_t algorithm_{};
};

}  // namespace

struct DeviceMatmul::Impl {
  using Key = std::tuple<DType, int64_t, int64_t, int64_t, int64_t, bool>;

  Impl() : workspace(kWorkspaceBytes) { cublas_check(cublasLtCreate(handle.address()), "starting"); }

  DeviceBuffer workspace;
  Owned<cublasLtHandle_t, cublasLtDestroy> handle;
  std::map<Key, std::unique_ptr<Shape>> shapes;
  // The last is the largest; recordings may use the others.
  std::vector<DeviceBuffer> tiles;
  int64_t tile_bytes = 0;

  float* tile(int64_t cols) {
    const int64_t wanted = std::max(kTileWeights, kWidenedRows * cols) * int64_t{sizeof(float)};
    if (tiles.empty() || static_cast<int64_t>(tiles.back().bytes()) < wanted) {
      tiles.emplace_back(static_cast<std::size_t>(wanted));
      tile_bytes += wanted;
    }
    return tiles.back().as<float>();
  }
  void multiply(const DeviceProduct& product, cudaStream_t stream) {
    const WeightView& weights = product.weights;
    std::unique_ptr<Shape>& shape = shapes[{weights.dtype, product.x.rows, weights.rows, weights.cols,
                                            product.out.stride, product.bias != nullptr}];
    if (!shape) shape = std::make_unique<Shape>(handle.get(), product);
    shape->run(handle.get(), product, workspace.as<void>(), stream);
  }
};

DeviceMatmul::DeviceMatmul() : impl_(std::make_unique<Impl>()) {}
DeviceMatmul::~DeviceMatmul() = default;

int64_t DeviceMatmul::workspace_bytes() const {
  return static_cast<int64_t>(kWorkspaceBytes) + impl_->tile_bytes;
}

void DeviceMatmul::run(const DeviceProduct& product, void* stream) {
  const WeightView& weights = product.weights;
  KVA_CHECK(product.x.type == weights.dtype && product.out.type == DType::kF32,
            "x of the weights' type, out f32");
  KVA_CHECK(product.x.cols == weights.cols && product.out.cols == weights.rows &&
                product.x.rows == product.out.rows && product.x.stride == product.x.cols &&
                product.out.stride == product.out.cols,
            "a product of fitting shapes");
  if (product.x.rows == 0 || weights.rows == 0) return;
  const auto on = static_cast<cudaStream_t>(stream);
  if (!weights.scales) return impl_->multiply(product, on);
  const int64_t rows = std::max<int64_t>(kTileWeights / weights.cols / kWidenedRows, 1) * kWidenedRows;
  multiply_in_tiles(product, impl_->tile(weights.cols), rows,
                    [&](const WidenJob& widen, const DeviceProduct& part) {
                      widen_cuda(widen, stream);
                      impl_->multiply(part, on);
                    });
}

}  // namespace kva
