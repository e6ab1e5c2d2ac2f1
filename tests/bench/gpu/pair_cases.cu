#include <cstddef>
#include <span>
#include <vector>

#include "kernels/matmul_cuda.h"
#include "kernels/similarity_cuda.h"
#include "tests/bench/gpu/cases.h"
#include "tests/bench/gpu/measuring.h"
#include "tests/bench/gpu/pages.h"

namespace kva {
namespace {

// A tile of all pairs as the analyzer takes it (analyzer/redundancy/all_pairs_device.cc).
constexpr int32_t kTilePages = 2048;
constexpr int32_t kPageNumbers = 1024;

// Pages [0, kTilePages) against the next as many.
std::vector<PairItem> tile_items() {
  std::vector<PairItem> items;
  for (int32_t row = 0; row < kTilePages; row += kPairRows)
    for (int32_t column = 0; column < kTilePages; column += kPairColumns)
      items.push_back({row, kPairRows, kTilePages + column, kPairColumns, 0, 0});
  return items;
}

// Cosine, centred cosine and L2 with their totals, histograms, bests and four partners a page, beside the
// bare product. Lists of partners are full from the first call on.
void products_case() {
  constexpr int64_t kPages = 2 * kTilePages, kPartners = 4;
  constexpr auto kSide = static_cast<std::size_t>(kTilePages);
  // Numbers of size below 1 have squared norms of a third of their count.
  const DeviceBuffer pages = random_floats(kPages * kPageNumbers, -1.0f, 1.0f),
                     squared = random_floats(kPages, 341.0f, 342.0f),
                     norm = random_floats(kPages, 18.4f, 18.5f),
                     inverse = random_floats(kPages, 0.0540f, 0.0541f),
                     mean_dot = random_floats(kPages, 0.0f, 0.1f), dots(kSide * kSide * sizeof(float)),
                     near(kSide * kSide * sizeof(uint32_t)), near_count = zeros(sizeof(uint32_t)),
                     sums = zeros(3 * sizeof(PairSums)), histogram = zeros(3 * kHistogramBins * 8),
                     best = zeros(3 * kPages * 4), partners = zeros(kPages * kPartners * 8);
  const std::vector<PairItem> items = tile_items();
  const DeviceBuffer item_list = DeviceBuffer::holding(std::span<const PairItem>(items));
  PairJob job;
  job.items = item_list.as<PairItem>();
  job.count = static_cast<int32_t>(items.size());
  job.tile = dots.as<float>();
  job.tile_column = kTilePages;
  job.tile_stride = kTilePages;
  job.thresholds[0] = 0.9f;
  job.threshold_count = 1;
  job.norms = {norm.as<float>(),    inverse.as<float>(),  squared.as<float>(),
               inverse.as<float>(), mean_dot.as<float>(), 0.1f};
  job.near = near.as<uint32_t>();
  job.near_count = near_count.as<uint32_t>();
  job.out = {
      .totals = sums.as<PairSums>(), .histogram = histogram.as<uint64_t>(), .groups = 1, .pages = kPages};
  job.out.row_best[0] = job.out.column_best[0] = best.as<int32_t>();
  job.partners = partners.as<uint64_t>();
  job.partner_count = kPartners;
  DeviceMatmul matmul;
  const DeviceProduct product{.x = {pages.as<float>(), DType::kF32, kTilePages, kPageNumbers, kPageNumbers},
                              .weights = {pages.as<float>() + int64_t{kTilePages} * kPageNumbers, DType::kF32,
                                          kTilePages, kPageNumbers},
                              .out = {dots.as<float>(), DType::kF32, kTilePages, kTilePages, kTilePages}};
  const double alone = median_ms([&] { matmul.run(product, nullptr); });
  const double fused = median_ms([&] {
    matmul.run(product, nullptr);
    compare_pairs_cuda(job, nullptr);
  });
  print_share("cosine, centred cosine and L2 of 2048 x 2048 pages of 1024 numbers, with top 4", fused,
              "cuBLAS product alone", alone);
}

constexpr int32_t kProbeRounds = 1024;

// Counts of words in registers alone.
__global__ void popcount_kernel(uint64_t* out) {
  uint64_t word = blockIdx.x * uint64_t{blockDim.x} + threadIdx.x;
  uint32_t sums[4] = {};
  for (int32_t i = 0; i < kProbeRounds / 4; ++i) {
    KVA_UNROLL
    for (int k = 0; k < 4; ++k)
      sums[k] += static_cast<uint32_t>(__popcll(word ^ static_cast<uint64_t>(i + k)));
    word += 0x9e3779b97f4a7c15u;
  }
  if (sums[0] + sums[1] + sums[2] + sums[3] == 0) *out = word;
}

void hamming_case() {
  constexpr int32_t kWords = kPageNumbers / 64;
  constexpr int64_t kPages = 2 * kTilePages;
  constexpr auto kSide = static_cast<std::size_t>(kTilePages);
  const DeviceBuffer words = random_bytes(kPages * kWords * 8), counts(kSide * kSide * sizeof(uint32_t)),
                     out = zeros(8);
  const BitCountJob job{.words = words.as<uint64_t>(),
                        .pages_stride = kPages,
                        .count = kWords,
                        .rows = kTilePages,
                        .column = kTilePages,
                        .columns = kTilePages,
                        .counts = counts.as<uint32_t>(),
                        .stride = kTilePages};
  const double counted = median_ms([&] { count_bits_cuda(job, nullptr); });
  constexpr unsigned int kBlocks = 4096, kThreads = 256;
  const double probed = median_ms([&] { popcount_kernel<<<kBlocks, kThreads>>>(out.as<uint64_t>()); });
  const double word_ms = probed / (double{kBlocks} * kThreads * kProbeRounds);
  print_share("Hamming of 2048 x 2048 pages of 1024 bits", counted, "popcounts of as many words",
              word_ms * kTilePages * kTilePages * kWords);
}

}  // namespace

void pair_cases() {
  products_case();
  hamming_case();
}

}  // namespace kva
