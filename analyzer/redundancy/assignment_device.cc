#include <algorithm>
#include <vector>

#include "analyzer/redundancy/assignment.h"
#include "kernels/check.h"
#include "kernels/device_ops.h"
#include "runtime/kv/device_array.h"

namespace kva {
namespace {

// Products that exist at once, in numbers: 64 MiB.
constexpr int64_t kMostProducts = int64_t{16} << 20;

// An iteration sends the centroids to the device and gets a label and a distance a page.
class DeviceAssignment : public CentroidAssignment {
 public:
  DeviceAssignment(const PageMatrix& pages, Backend& backend)
      : backend_(backend),
        cols_(pages.centred().cols),
        points_(backend, "pages to cluster"),
        point_squares_(backend, "norms of pages"),
        centroids_(backend, "centroids"),
        squares_(backend, "norms of centroids"),
        dots_(backend, "products with centroids"),
        nearest_(backend, "nearest centroids"),
        distances_(backend, "distances to centroids") {
    const MatView<const float> rows = pages.centred();
    KVA_CHECK(rows.stride == cols_, "pages one after the other");
    points_.reserve(rows.rows * cols_);
    backend_.upload(points_.data(), rows.data, rows.rows * cols_ * int64_t{sizeof(float)});
    point_squares_.upload(pages.norms(kJoinedHeads).centred_squared);
  }

  void assign(MatView<const float> centroids, const float* squares, int64_t first, int64_t count,
              int64_t* labels, float* distances) override {
    KVA_CHECK(centroids.cols == cols_ && centroids.stride == cols_, "centroids as wide as pages, row by row");
    centroids_.upload({centroids.data, static_cast<std::size_t>(centroids.rows * cols_)});
    squares_.upload({squares, static_cast<std::size_t>(centroids.rows)});
    // Whole multiples of 64 rows, so that products find every block at an aligned address.
    const int64_t block = std::min(std::max<int64_t>(kMostProducts / centroids.rows / 64 * 64, 64),
                                   std::max<int64_t>(count, 1));
    dots_.reserve(block * centroids.rows);
    nearest_.reserve(count);
    distances_.reserve(count);
    for (int64_t at = 0; at < count; at += block)
      assign_block(centroids.rows, first + at, std::min(block, count - at), at);
    nearest_on_host_.resize(static_cast<std::size_t>(count));
    backend_.download(nearest_on_host_.data(), nearest_.data(), count * int64_t{sizeof(int32_t)});
    std::copy(nearest_on_host_.begin(), nearest_on_host_.end(), labels);
    backend_.download(distances, distances_.data(), count * int64_t{sizeof(float)});
  }

 private:
  // Pages [first, first + count), whose results go to place `at`.
  void assign_block(int64_t centroids, int64_t first, int64_t count, int64_t at) {
    DeviceOps& device = *backend_.device();
    device.multiply({.x = {points_.data() + first * cols_, DType::kF32, count, cols_, cols_},
                     .weights = {centroids_.data(), DType::kF32, centroids, cols_},
                     .out = {dots_.data(), DType::kF32, count, centroids, centroids}});
    device.nearest({.dots = dots_.data(),
                    .points = count,
                    .centroids = static_cast<int32_t>(centroids),
                    .squares = squares_.data(),
                    .point_squares = point_squares_.data() + first,
                    .nearest = nearest_.data() + at,
                    .distances = distances_.data() + at});
  }

  Backend& backend_;
  int64_t cols_;
  DeviceArray<float> points_, point_squares_, centroids_, squares_, dots_;
  DeviceArray<int32_t> nearest_;
  DeviceArray<float> distances_;
  std::vector<int32_t> nearest_on_host_;
};

}  // namespace

std::unique_ptr<CentroidAssignment> make_device_assignment(const PageMatrix& pages, Backend& backend) {
  KVA_CHECK(backend.device() != nullptr, "memory of a device");
  return std::make_unique<DeviceAssignment>(pages, backend);
}

}  // namespace kva
