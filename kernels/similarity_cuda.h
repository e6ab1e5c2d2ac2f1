// The CUDA pair of similarity.h: all pairs of one side's pages on the device, one similarity at a time. Only
// one tile of products exists at once, never pages x pages. Only in builds with CUDA; call these only where
// cuda_device_count() > 0. They run on device 0, block until done, and throw std::runtime_error where CUDA
// fails. One call at a time per process.
//
// Totals are integers added by integer atomics, and partners have a total order, so results do not depend on
// scheduling. The arithmetic of a pair is similarity_math.h, as on the CPU; products differ from the CPU's by
// the rounding of an f32 sum of `values` terms.
#pragma once

#include <cstdint>
#include <span>
#include <vector>

#include "kernels/similarity.h"

namespace kva {

enum class ProductSimilarity { kCosine, kCosineCentred, kL2 };
enum class BitSimilarity { kHamming, kJaccard };

// Device pointers; the norms' arrays too, mean_squared by value.
struct DevicePages {
  const float* centred = nullptr;  // [pages, values], rows `stride` apart
  int64_t pages = 0;
  int64_t values = 0;
  int64_t stride = 0;
  PageNorms norms;
};

// Device pointer to words laid out as BitMatrix.
struct DeviceBits {
  const uint64_t* words = nullptr;
  int64_t pages = 0;
  int64_t bits = 0;
  int64_t stride = 0;
};

struct DevicePartner {
  float similarity = -2.0f;
  int32_t page = -1;
};

inline constexpr int kMaxDevicePartners = 8;

// On the host.
struct DeviceComparison {
  ValueTotals totals;              // of pairs i < j
  std::vector<int64_t> histogram;  // kHistogramBins over [low, 1]; low is -1, or 0 for bits
  // [pages, partners]: most similar other pages, best first, equal ones by the lower page.
  std::vector<DevicePartner> partners;
};

// At most kMaxThresholds thresholds and kMaxDevicePartners partners.
DeviceComparison compare_products_cuda(const DevicePages& pages, ProductSimilarity similarity,
                                       std::span<const float> thresholds, int partners);

// set_size: kJaccard only, bits set in each page.
DeviceComparison compare_bits_cuda(const DeviceBits& bits, BitSimilarity similarity, int64_t set_size,
                                   std::span<const float> thresholds, int partners);

}  // namespace kva
