// Which centroid is nearest to each page: the whole work of k-means but for the means.
#pragma once

#include <cstdint>
#include <memory>

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

// On the CPU: the same at any number of threads. Pages and pool outlive it.
std::unique_ptr<CentroidAssignment> make_assignment(const PageMatrix& pages, ThreadPool& pool);

// On a device, with a copy of the pages there; products are its library's, in f32. Throws InputError where
// the device has not the memory. Pages and backend, of which device() is not null, outlive it.
std::unique_ptr<CentroidAssignment> make_device_assignment(const PageMatrix& pages, Backend& backend);

}  // namespace kva
