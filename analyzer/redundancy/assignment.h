// Which centroid is nearest to each page: the whole work of k-means but for the means.
#pragma once

#include <cstdint>
#include <memory>
#include <string_view>

#include "analyzer/redundancy/page_matrix.h"
#include "kernels/parallel.h"
#include "runtime/backend/backend.h"

namespace kva {

// Of the centred pages with their heads joined. Used by one thread at a time.
class CentroidAssignment {
 public:
  virtual ~CentroidAssignment() = default;

  // centroids: [k, numbers of a page], squares: [k] their squared norms. labels[i] = the first nearest
  // centroid of page first + i, for i < count, and distances[i] the squared distance to it, in the pages'
  // unit.
  virtual void assign(MatView<const float> centroids, const float* squares, int64_t first, int64_t count,
                      int64_t* labels, float* distances) = 0;
};

// Who finds the nearest centroids of an analysis.
enum class NearestSearch { kCpu, kDevice, kFaissGpu };

// device: as for make_assignment().
NearestSearch nearest_search(Backend* device);
std::string_view nearest_search_name(NearestSearch search);  // as in report.json

// On the device: FAISS's GPU index where this build's FAISS has it and the device is CUDA's, else our own
// search. Null: on the CPU, the same at any number of threads. All find the nearest by f32 products; where
// two are equally near but for rounding, they may differ. Throws InputError where the device has not the
// memory. Pages, pool and backend, of which device() is not null, outlive it.
std::unique_ptr<CentroidAssignment> make_assignment(const PageMatrix& pages, ThreadPool& pool,
                                                    Backend* device);

std::unique_ptr<CentroidAssignment> make_cpu_assignment(const PageMatrix& pages, ThreadPool& pool);

// With a copy of the pages there; products are the device's, in f32.
std::unique_ptr<CentroidAssignment> make_device_assignment(const PageMatrix& pages, Backend& backend);

// With a copy of the pages there. FAISS takes its memory from the backend; only what cuBLAS has for its
// handle comes from the driver, uncounted, and FAISS aborts where that is not to be had. The device is
// CUDA's; only in builds whose FAISS has the index.
std::unique_ptr<CentroidAssignment> make_faiss_gpu_assignment(const PageMatrix& pages, Backend& backend);

}  // namespace kva
