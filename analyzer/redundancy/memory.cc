#include "analyzer/redundancy/memory.h"

#include <fmt/format.h>

#include <algorithm>
#include <limits>
#include <string>

#include "analyzer/redundancy/all_pairs.h"
#include "analyzer/redundancy/pair_tile.h"
#include "analyzer/redundancy/redundancy.h"
#include "kernels/similarity.h"
#include "runtime/backend/host_memory.h"
#include "runtime/error.h"

namespace kva {
namespace {

double gibibytes(int64_t bytes) { return static_cast<double>(bytes) / (1 << 30); }

}  // namespace

// In double: a hostile shape must not overflow.
int64_t redundancy_memory_bytes(const PageSet& pages, const RedundancyOptions& options, int threads) {
  const double count = static_cast<double>(pages.page_count());
  const double values = count * pages.kv_heads * pages.page_tokens * pages.head_dim;
  const double heads = options.per_head ? pages.kv_heads : 0;
  const double sets = static_cast<double>(std::min<std::size_t>(pages.prompts.size(), 1000)) + 1;
  // Three prepared matrices of this layer and, if there is one, of the layer before: numbers, signs, two
  // index sets, and the numbers in bf16.
  const double of_number = 4 + 3.0 / 8 + (options.products == DType::kBF16 ? 2 : 0);
  const double matrices = (pages.layers > 1 ? 6 : 3) * values * of_number;
  const double tile = static_cast<double>(kTileRows * kTileColumns) * 5 * 4;
  const double totals = kMetrics * ((heads + sets) * kHistogramBins * 8 + count * 4 * (heads + 4));
  const double partners = count * (options.top_partners * sizeof(Partner) + sizeof(float));
  const double across = static_cast<double>(pages.layers) * values / std::max(1.0, count) * 4;
  const double kept = 3.0 * pages.layers * (partners + 65536);
  const double bytes = matrices + threads * (tile + totals + partners + across) + kept;
  return bytes < 9e18 ? static_cast<int64_t>(bytes) : std::numeric_limits<int64_t>::max();
}

int64_t redundancy_device_bytes(const PageSet& pages, const RedundancyOptions& options) {
  const double count = static_cast<double>(pages.page_count());
  const double values = count * pages.kv_heads * pages.page_tokens * pages.head_dim;
  const double heads = options.per_head ? pages.kv_heads : 0;
  const double sets = static_cast<double>(std::min<std::size_t>(pages.prompts.size(), 1000)) + 1;
  const double prompts = static_cast<double>(pages.prompts.size());
  const double norms = count * (pages.kv_heads + 1) * (5 * 4 + 2 * 8);
  const double matrix = values * (4 + 3.0 / 8 + (options.products == DType::kBF16 ? 2 : 0)) + norms;
  const double side = std::min(count, static_cast<double>(kDeviceTilePages));
  const double tile = side * side * 4 * 5;
  const double totals =
      kMetrics * ((heads + sets) * (kHistogramBins * 8 + 112) + count * 4 * (heads + 4) + prompts * 112);
  const double partners = count * (options.top_partners * 8 + 4);
  constexpr double kSlack = 1.25;  // what arrays grow by beforehand, and small ones
  // Clusters come after all pairs, whose memory is free then.
  const double clusters = values * 4 * 2 + (int64_t{64} << 20);
  const double bytes = kSlack * std::max(matrix + tile + totals + partners, clusters);
  return bytes < 9e18 ? static_cast<int64_t>(bytes) : std::numeric_limits<int64_t>::max();
}

void check_memory(int64_t needed_bytes, int64_t limit_bytes) {
  const int64_t limit = limit_bytes > 0 ? limit_bytes : host_memory().available_bytes;
  if (needed_bytes <= limit) return;
  throw InputError(
      fmt::format("analysis: needs about {:.2f} GiB of memory, found {:.2f} GiB {}; analyse fewer "
                  "prompts (--limit), shorter ones (--max-context), or with fewer --threads",
                  gibibytes(needed_bytes), gibibytes(limit), limit_bytes > 0 ? "allowed" : "available"));
}

}  // namespace kva
