#include <algorithm>
#include <vector>

#include "analyzer/redundancy/assignment.h"
#include "kernels/nearest.h"

namespace kva {
namespace {

// Rows of a product: the floor of an iteration is 2 n k d operations at the peak of f32 products.
constexpr int64_t kBlock = 256;

class CpuAssignment : public CentroidAssignment {
 public:
  CpuAssignment(const PageMatrix& pages, ThreadPool& pool) : pages_(pages), pool_(pool) {}

  void assign(MatView<const float> centroids, const float* squares, int64_t first, int64_t count,
              int64_t* labels, float* distances) override {
    const std::vector<float>& page_squares = pages_.norms(kJoinedHeads).centred_squared;
    pool_.parallel_for((count + kBlock - 1) / kBlock, [&](int64_t block, int) {
      const int64_t at = block * kBlock;
      const int64_t rows = std::min(kBlock, count - at);
      // Products of a block stay in the second-level cache until their least distance is found.
      thread_local std::vector<float> dots;
      dots.resize(static_cast<std::size_t>(kBlock * centroids.rows));
      dot_tile(pages_.centred().row_range(first + at, rows), centroids,
               MatView<float>(dots.data(), rows, centroids.rows));
      for (int64_t r = 0; r < rows; ++r) {
        const float* of_row = dots.data() + r * centroids.rows;
        const int64_t best = least_distance(of_row, squares, centroids.rows);
        const float square = page_squares[static_cast<std::size_t>(first + at + r)];
        labels[at + r] = best;
        distances[at + r] = squared_distance(square, squares[best], of_row[best]);
      }
    });
  }

 private:
  const PageMatrix& pages_;
  ThreadPool& pool_;
};

}  // namespace

std::unique_ptr<CentroidAssignment> make_cpu_assignment(const PageMatrix& pages, ThreadPool& pool) {
  return std::make_unique<CpuAssignment>(pages, pool);
}

}  // namespace kva
