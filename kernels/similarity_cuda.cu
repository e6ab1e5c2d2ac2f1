// A tile is kTile rows against kTile columns. One warp takes one row of the tile, its lanes the columns.
// Every row meets all other pages (not only later ones), so that a row's partners belong to one warp and need
// no locks; totals count pairs i < j only.
#include <algorithm>

#include "kernels/check.h"
#include "kernels/cuda_check.cuh"
#include "kernels/device_buffer.h"
#include "kernels/similarity_cuda.h"

namespace kva {
namespace {

constexpr int64_t kTile = 1024;
constexpr int kWarp = 32;
constexpr int kWarps = 8;  // of a block

using Count = unsigned long long;

// Running totals on the device. Minimum and maximum as keys that order like the floats.
struct DeviceTotals {
  Count count;
  Count sum;  // two's complement
  Count squares_high;
  Count squares_low;
  Count over[kMaxThresholds];
  int min_key;
  int max_key;
};

struct Rules {
  float low;
  float thresholds[kMaxThresholds];
  int threshold_count;
};

struct Tile {
  int64_t pages;
  int64_t row;
  int64_t rows;
  int64_t column;
  int64_t columns;
};

__host__ __device__ inline int key_of(int bits) { return bits < 0 ? bits ^ 0x7fffffff : bits; }

float float_of_key(int key) {
  const int bits = key_of(key);
  float value;
  static_assert(sizeof value == sizeof bits);
  std::copy_n(reinterpret_cast<const char*>(&bits), sizeof bits, reinterpret_cast<char*>(&value));
  return value;
}

__device__ inline bool better(const DevicePartner& a, const DevicePartner& b) {
  return a.similarity > b.similarity || (a.similarity == b.similarity && a.page < b.page);
}

// Inserts into a list that is sorted, best first; an empty place has page -1 and similarity -2.
__device__ inline void offer(DevicePartner* list, int size, const DevicePartner& candidate) {
  if (size == 0 || (list[size - 1].page >= 0 && !better(candidate, list[size - 1]))) return;
  int at = size - 1;
  while (at > 0 && (list[at - 1].page < 0 || better(candidate, list[at - 1]))) {
    list[at] = list[at - 1];
    --at;
  }
  list[at] = candidate;
}

// Similarity of page i with page j from the tile of products.
struct ProductValue {
  const float* dots;  // [rows, kTile]
  DevicePages pages;
  ProductSimilarity similarity;

  __device__ float operator()(const Tile& tile, int64_t i, int64_t j) const {
    const PageNorms& norms = pages.norms;
    const float dot = dots[(i - tile.row) * kTile + (j - tile.column)];
    if (similarity == ProductSimilarity::kCosineCentred)
      return cosine_similarity(dot, norms.centred_inverse[i], norms.centred_inverse[j]);
    if (similarity == ProductSimilarity::kCosine) {
      const float plain = dot + (norms.mean_dot[j] + (norms.mean_dot[i] + norms.mean_squared));
      return cosine_similarity(plain, norms.inverse[i], norms.inverse[j]);
    }
    float squared = squared_distance(norms.centred_squared[i], norms.centred_squared[j], dot);
    if (nearly_equal(norms.centred_squared[i], norms.centred_squared[j], squared)) squared = exact(i, j);
    return l2_similarity(sqrtf(squared), norms.norm[i], norms.norm[j]);
  }

  __device__ float exact(int64_t i, int64_t j) const {
    const float* x = pages.centred + i * pages.stride;
    const float* y = pages.centred + j * pages.stride;
    double sum = 0.0;
    for (int64_t k = 0; k < pages.values; ++k) {
      const double difference = static_cast<double>(x[k]) - static_cast<double>(y[k]);
      sum += difference * difference;
    }
    return static_cast<float>(sum);
  }
};

struct BitValue {
  DeviceBits bits;
  BitSimilarity similarity;
  uint32_t set_size;

  __device__ float operator()(const Tile&, int64_t i, int64_t j) const {
    const int64_t words = (bits.bits + 63) / 64;
    uint32_t count = 0;
    for (int64_t w = 0; w < words; ++w) {
      const Count a = bits.words[w * bits.stride + i];
      const Count b = bits.words[w * bits.stride + j];
      count += static_cast<uint32_t>(__popcll(similarity == BitSimilarity::kHamming ? a ^ b : a & b));
    }
    return similarity == BitSimilarity::kHamming ? hamming_similarity(count, static_cast<uint32_t>(bits.bits))
                                                 : jaccard_similarity(count, set_size);
  }
};

// What one lane saw of its row. At most kTile / kWarp = 32 values of 2^48 each: the squares fit.
struct LaneTotals {
  long long count = 0;
  long long sum = 0;
  long long squares = 0;
  int over[kMaxThresholds] = {};
  int min_key = 0x7fffffff;
  int max_key = -0x7fffffff - 1;
};

__device__ inline void add_value(LaneTotals& lane, unsigned int* histogram, const Rules& rules, float value) {
  const long long q = __float2ll_rn(value * kFixedOne);
  ++lane.count;
  lane.sum += q;
  lane.squares += q * q;
  for (int t = 0; t < rules.threshold_count; ++t) lane.over[t] += value > rules.thresholds[t];
  const int key = key_of(__float_as_int(value));
  lane.min_key = min(lane.min_key, key);
  lane.max_key = max(lane.max_key, key);
  const float scale = static_cast<float>(kHistogramBins) / (1.0f - rules.low);
  atomicAdd(&histogram[histogram_bin(value, rules.low, scale, kHistogramBins)], 1u);
}

__device__ inline long long warp_sum(long long value) {
  for (int offset = kWarp / 2; offset > 0; offset /= 2) value += __shfl_down_sync(0xffffffffu, value, offset);
  return value;
}

// All lanes of a warp call this.
__device__ inline void add_totals(const LaneTotals& lane, int threshold_count, DeviceTotals* totals) {
  const bool first = threadIdx.x % kWarp == 0;
  const long long count = warp_sum(lane.count);
  const long long sum = warp_sum(lane.sum);
  const long long squares = warp_sum(lane.squares);
  if (first && count > 0) {
    atomicAdd(&totals->count, static_cast<Count>(count));
    atomicAdd(&totals->sum, static_cast<Count>(sum));
    atomicAdd(&totals->squares_high, static_cast<Count>(squares >> 24));
    atomicAdd(&totals->squares_low, static_cast<Count>(squares & 0xffffff));
  }
  for (int t = 0; t < threshold_count; ++t) {
    const long long over = warp_sum(lane.over[t]);
    if (first && over > 0) atomicAdd(&totals->over[t], static_cast<Count>(over));
  }
  const int min_key = __reduce_min_sync(0xffffffffu, lane.min_key);
  const int max_key = __reduce_max_sync(0xffffffffu, lane.max_key);
  if (first && count > 0) {
    atomicMin(&totals->min_key, min_key);
    atomicMax(&totals->max_key, max_key);
  }
}

// Lane 0 merges the lanes' lists, in their order, into the row's list; `shared` holds one list a lane.
__device__ inline void merge_partners(const DevicePartner* own, DevicePartner* shared, int partners,
                                      DevicePartner* row_list) {
  const int lane = threadIdx.x % kWarp;
  for (int k = 0; k < partners; ++k) shared[lane * kMaxDevicePartners + k] = own[k];
  __syncwarp();
  if (lane == 0)
    for (int l = 0; l < kWarp; ++l)
      for (int k = 0; k < partners; ++k) {
        const DevicePartner& candidate = shared[l * kMaxDevicePartners + k];
        if (candidate.page >= 0) offer(row_list, partners, candidate);
      }
  __syncwarp();
}

template <typename Value>
__global__ void compare_tile(Tile tile, Value value_of, Rules rules, int partners, DeviceTotals* totals,
                             Count* histogram, DevicePartner* partner_lists) {
  __shared__ unsigned int block_histogram[kHistogramBins];
  __shared__ DevicePartner lists[kWarps * kWarp * kMaxDevicePartners];
  for (int b = threadIdx.x; b < kHistogramBins; b += blockDim.x) block_histogram[b] = 0;
  __syncthreads();

  const int warp = threadIdx.x / kWarp;
  const int lane = threadIdx.x % kWarp;
  const int64_t row = static_cast<int64_t>(blockIdx.x) * kWarps + warp;
  if (row < tile.rows) {  // the same for all lanes of a warp
    const int64_t i = tile.row + row;
    LaneTotals seen;
    DevicePartner best[kMaxDevicePartners];
    for (int k = 0; k < kMaxDevicePartners; ++k) best[k] = DevicePartner{-2.0f, -1};
    for (int64_t c = lane; c < tile.columns; c += kWarp) {
      const int64_t j = tile.column + c;
      if (j == i) continue;
      const float value = value_of(tile, i, j);
      offer(best, partners, DevicePartner{value, static_cast<int32_t>(j)});
      if (j > i) add_value(seen, block_histogram, rules, value);
    }
    __syncwarp();
    add_totals(seen, rules.threshold_count, totals);
    merge_partners(best, lists + warp * kWarp * kMaxDevicePartners, partners, partner_lists + i * partners);
  }
  __syncthreads();
  for (int b = threadIdx.x; b < kHistogramBins; b += blockDim.x)
    if (block_histogram[b] > 0) atomicAdd(&histogram[b], static_cast<Count>(block_histogram[b]));
}

Rules rules_of(float low, std::span<const float> thresholds) {
  KVA_CHECK(thresholds.size() <= kMaxThresholds, "too many thresholds");
  Rules rules{};
  rules.low = low;
  rules.threshold_count = static_cast<int>(thresholds.size());
  std::copy(thresholds.begin(), thresholds.end(), rules.thresholds);
  return rules;
}

// The device side of a DeviceComparison.
class Running {
 public:
  Running(int64_t pages, int partners)
      : pages_(pages),
        partners_(partners),
        totals_(sizeof(DeviceTotals)),
        histogram_(kHistogramBins * sizeof(Count)),
        lists_(static_cast<std::size_t>(pages * partners) * sizeof(DevicePartner)) {
    KVA_CHECK(partners >= 0 && partners <= kMaxDevicePartners, "number of partners");
    DeviceTotals start{};
    start.min_key = 0x7fffffff;
    start.max_key = -0x7fffffff - 1;
    totals_.upload(&start, sizeof start);
    histogram_.fill_zero();
    const std::vector<DevicePartner> none(static_cast<std::size_t>(pages * partners));
    lists_.upload(none.data(), none.size() * sizeof(DevicePartner));
  }

  template <typename Value>
  void launch(const Tile& tile, const Value& value, const Rules& rules) {
    const unsigned int blocks = static_cast<unsigned int>((tile.rows + kWarps - 1) / kWarps);
    compare_tile<<<blocks, kWarps * kWarp>>>(tile, value, rules, partners_, totals_.as<DeviceTotals>(),
                                             histogram_.as<Count>(), lists_.as<DevicePartner>());
    cuda_check(cudaGetLastError(), "launching a similarity tile");
  }

  DeviceComparison finish() {
    cuda_check(cudaDeviceSynchronize(), "comparing pages");
    DeviceTotals totals;
    totals_.download(&totals, sizeof totals);
    DeviceComparison result;
    result.totals.count = static_cast<int64_t>(totals.count);
    result.totals.sum = static_cast<int64_t>(totals.sum);
    result.totals.squares_high = static_cast<int64_t>(totals.squares_high);
    result.totals.squares_low = static_cast<int64_t>(totals.squares_low);
    for (int t = 0; t < kMaxThresholds; ++t) result.totals.over[t] = static_cast<int64_t>(totals.over[t]);
    if (totals.count > 0) {
      result.totals.min = float_of_key(totals.min_key);
      result.totals.max = float_of_key(totals.max_key);
    }
    static_assert(sizeof(Count) == sizeof(int64_t));
    result.histogram.resize(kHistogramBins);
    histogram_.download(result.histogram.data(), kHistogramBins * sizeof(int64_t));
    result.partners.resize(static_cast<std::size_t>(pages_ * partners_));
    lists_.download(result.partners.data(), result.partners.size() * sizeof(DevicePartner));
    return result;
  }

 private:
  int64_t pages_;
  int partners_;
  DeviceBuffer totals_;
  DeviceBuffer histogram_;
  DeviceBuffer lists_;
};

// Calls body(tile) for all tiles, in order.
template <typename Body>
void each_tile(int64_t pages, const Body& body) {
  for (int64_t row = 0; row < pages; row += kTile)
    for (int64_t column = 0; column < pages; column += kTile)
      body(Tile{pages, row, std::min(kTile, pages - row), column, std::min(kTile, pages - column)});
}

class Cublas {
 public:
  Cublas() {
    cublas_check(cublasCreate(&handle_), "starting");
    // Plain f32: TF32 would round the products to 11 bits.
    if (cublasSetMathMode(handle_, CUBLAS_PEDANTIC_MATH) != CUBLAS_STATUS_SUCCESS) {
      (void)cublasDestroy(handle_);
      throw std::runtime_error("cuBLAS: choosing f32 products");
    }
  }
  ~Cublas() { (void)cublasDestroy(handle_); }
  Cublas(const Cublas&) = delete;
  Cublas& operator=(const Cublas&) = delete;

  // dots [rows, kTile] row-major = row pages · column pages. cuBLAS is column-major: its matrix is the
  // transposed tile, columns x rows with leading dimension kTile.
  void dots(const DevicePages& pages, const Tile& tile, float* out) {
    const float one = 1.0f;
    const float zero = 0.0f;
    cublas_check(cublasSgemm(handle_, CUBLAS_OP_T, CUBLAS_OP_N, static_cast<int>(tile.columns),
                             static_cast<int>(tile.rows), static_cast<int>(pages.values), &one,
                             pages.centred + tile.column * pages.stride, static_cast<int>(pages.stride),
                             pages.centred + tile.row * pages.stride, static_cast<int>(pages.stride), &zero,
                             out, static_cast<int>(kTile)),
                 "multiplying a tile");
  }

 private:
  cublasHandle_t handle_ = nullptr;
};

}  // namespace

DeviceComparison compare_products_cuda(const DevicePages& pages, ProductSimilarity similarity,
                                       std::span<const float> thresholds, int partners) {
  KVA_CHECK(pages.stride >= pages.values && pages.stride <= 0x7fffffff, "a page that cuBLAS can address");
  KVA_CHECK(cuda_device_count() > 0, "a CUDA device");
  Running running(pages.pages, partners);
  const Rules rules = rules_of(-1.0f, thresholds);
  Cublas cublas;
  const DeviceBuffer dots(static_cast<std::size_t>(kTile * kTile) * sizeof(float));
  // One stream: a tile's products are done before its kernel reads them, and are read before the next ones.
  each_tile(pages.pages, [&](const Tile& tile) {
    cublas.dots(pages, tile, dots.as<float>());
    running.launch(tile, ProductValue{dots.as<float>(), pages, similarity}, rules);
  });
  return running.finish();
}

DeviceComparison compare_bits_cuda(const DeviceBits& bits, BitSimilarity similarity, int64_t set_size,
                                   std::span<const float> thresholds, int partners) {
  KVA_CHECK(bits.stride >= bits.pages, "words laid out as BitMatrix");
  KVA_CHECK(cuda_device_count() > 0, "a CUDA device");
  Running running(bits.pages, partners);
  const Rules rules = rules_of(0.0f, thresholds);
  const BitValue value{bits, similarity, static_cast<uint32_t>(set_size)};
  each_tile(bits.pages, [&](const Tile& tile) { running.launch(tile, value, rules); });
  return running.finish();
}

}  // namespace kva
