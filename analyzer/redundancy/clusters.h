// k-means of the pages of one layer and side by FAISS, and what sharing a representative would free.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "analyzer/redundancy/page_matrix.h"
#include "kernels/parallel.h"
#include "runtime/backend/backend.h"

namespace kva {

struct ClusterOptions {
  int64_t k = 0;  // >= 1, at most the number of pages
  int iterations = 20;
  uint64_t seed = 0;
};

struct Clusters {
  int iterations = 0;
  std::vector<int64_t> sizes;     // of each cluster, descending; empty ones included as 0
  std::vector<double> distances;  // of each page to its centroid, ascending, `unit` applied
  double inertia = 0.0;           // sum of their squares
  double total_variance = 0.0;    // sum of squared distances to the mean page
  double squared_norms = 0.0;     // sum of the pages' squared norms
};

// k stated by a rule: `asked` where it is > 0, else the square root of the number of pages rounded up; never
// more than the number of pages.
int64_t cluster_count(int64_t pages, int asked);
std::string cluster_rule(int64_t pages, int asked);

// The same at any number of threads. FAISS's own loops use as many OpenMP threads as the caller is set to:
// one inside a ThreadPool worker. device: where pages are assigned to centroids, used by one thread at a
// time; null: on the CPU. Throws InputError where it has not the memory.
Clusters cluster_pages(const PageMatrix& pages, const ClusterOptions& options, ThreadPool& pool,
                       Backend* device = nullptr);

}  // namespace kva
