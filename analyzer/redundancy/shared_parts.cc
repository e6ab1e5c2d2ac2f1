#include "analyzer/redundancy/shared_parts.h"

#include <cstring>
#include <functional>

#include "analyzer/redundancy/duplicates.h"
#include "runtime/interrupt.h"

namespace kva {
namespace {

// As the pages are stored, and with their tokens in another order.
DuplicateRow find_duplicates(const AnalysisContext& context, int layer, SideBasis side, bool shuffled) {
  const PageSet& pages = context.pages;
  const PageShape shape = shape_of(pages);
  const int64_t token_bytes = shape.head_dim * dtype_bytes(pages.dtype);
  const int64_t page_bytes = shape.tokens * token_bytes;
  const std::byte* stored = pages.side_values(layer, side == SideBasis::kValue ? Side::kValue : Side::kKey);
  const auto as_stored = [&](int64_t page, std::byte*) { return stored + page * page_bytes; };
  const auto reordered = [&](int64_t page, std::byte* buffer) {
    for (int64_t t = 0; t < shape.tokens; ++t) {
      const int64_t slot = page / shape.heads * shape.tokens + t;
      const int64_t source = context.orders.everywhere[static_cast<std::size_t>(slot)];
      const int64_t from =
          (source / shape.tokens * shape.heads + page % shape.heads) * shape.tokens + source % shape.tokens;
      std::memcpy(buffer + t * token_bytes, stored + from * token_bytes,
                  static_cast<std::size_t>(token_bytes));
    }
    return static_cast<const std::byte*>(buffer);
  };
  DuplicateRow row;
  row.layer = layer;
  row.side = side;
  row.pages = shape.pages * shape.heads;
  Backend* device = context.options.device.get();
  if (device && row.pages <= kMostDevicePages)
    row.duplicates = count_duplicates_on_device({stored, shape.heads, shape.tokens, token_bytes,
                                                 shuffled ? context.orders.everywhere.data() : nullptr},
                                                shape.pages, *device);
  else
    row.duplicates = shuffled ? count_duplicates(row.pages, page_bytes, reordered)
                              : count_duplicates(row.pages, page_bytes, as_stored);
  row.unique = row.pages - row.duplicates;
  row.bytes = row.duplicates * page_bytes;
  return row;
}

// Which one thread uses at a time.
SharedParts find_on_device(const ClusterOptions& clustering, const AnalysisContext& context,
                           const PageMatrix& real, const PageMatrix& shuffled) {
  Backend& device = *context.options.device;
  SharedParts parts;
  parts.clusters = cluster_pages(real, clustering, context.pool, &device);
  parts.shuffled_clusters = cluster_pages(shuffled, clustering, context.pool, &device);
  parts.covers = cover_heads_on_device(real, context.thresholds, device);
  parts.shuffled_covers = cover_heads_on_device(shuffled, context.thresholds, device);
  return parts;
}

using Tasks = std::vector<std::function<void()>>;

void add_tasks(Tasks& tasks, const ClusterOptions& clustering, const AnalysisContext& context,
               const PageMatrix& pages, Clusters& clusters, std::vector<Cover>& covers) {
  tasks.push_back([&] { clusters = cluster_pages(pages, clustering, context.pool); });
  covers.resize(static_cast<std::size_t>(pages.shape().heads));
  for (std::size_t h = 0; h < covers.size(); ++h)
    tasks.push_back([&, h] { covers[h] = cover_pages(pages, static_cast<int>(h), context.thresholds); });
}

}  // namespace

SharedParts find_shared_parts(const AnalysisContext& context, int layer, SideBasis side, bool stored,
                              const PageMatrix& real, const PageMatrix& shuffled) {
  const ClusterOptions clustering = {cluster_count(context.grouping.pages(), context.options.clusters),
                                     context.options.cluster_iterations, context.options.seed};
  const bool on_device = context.options.device != nullptr;
  SharedParts parts;
  DuplicateRow shuffled_duplicates;
  // Each part is one task of the pool.
  Tasks tasks;
  if (on_device) {
    parts = find_on_device(clustering, context, real, shuffled);
  } else {
    add_tasks(tasks, clustering, context, real, parts.clusters, parts.covers);
    add_tasks(tasks, clustering, context, shuffled, parts.shuffled_clusters, parts.shuffled_covers);
  }
  if (stored) {
    tasks.push_back([&] { parts.duplicates = find_duplicates(context, layer, side, false); });
    tasks.push_back([&] { shuffled_duplicates = find_duplicates(context, layer, side, true); });
  }
  const auto run = [&](int64_t index, int) {
    throw_if_interrupted();
    tasks[static_cast<std::size_t>(index)]();
  };
  if (on_device)
    for (int64_t index = 0; index < std::ssize(tasks); ++index) run(index, 0);
  else
    context.pool.parallel_for(std::ssize(tasks), run);
  parts.duplicates.shuffled_duplicates = shuffled_duplicates.duplicates;
  return parts;
}

}  // namespace kva
