#include "analyzer/redundancy/clusters.h"

#include <faiss/Clustering.h>
#include <faiss/Index.h>
#include <fmt/format.h>

#include <algorithm>
#include <cmath>
#include <functional>
#include <limits>

#include "analyzer/redundancy/assignment.h"
#include "kernels/check.h"

namespace kva {
namespace {

// Exact nearest centroid for FAISS's k-means. IndexFlatL2 would compute the norms of all pages again at each
// iteration, without SIMD in Debian's build, and multiply by a slower product: twice the time in all; and it
// knows no device.
class NearestCentroid : public faiss::Index {
 public:
  NearestCentroid(const PageMatrix& pages, CentroidAssignment& assignment)
      : faiss::Index(pages.shape().page_values(), faiss::METRIC_L2), pages_(pages), assignment_(assignment) {}

  void add(int64_t n, const float* x) override {
    centroids_.insert(centroids_.end(), x, x + n * d);
    for (int64_t c = 0; c < n; ++c) {
      const CentredBlock block{x + c * d, no_mean_.data(), 1, d, 1.0};
      squares_.push_back(static_cast<float>(pair_products(block, block).centred_dot));
    }
    ntotal += n;
  }

  void reset() override {
    centroids_.clear();
    squares_.clear();
    ntotal = 0;
  }

  // x: rows of the page matrix.
  void search(int64_t n, const float* x, int64_t k, float* distances, int64_t* labels,
              const faiss::SearchParameters* = nullptr) const override {
    const MatView<const float> points = pages_.centred();
    const int64_t offset = x - points.data;
    KVA_CHECK(k == 1 && offset % d == 0 && offset / d + n <= points.rows, "the nearest centroid of a page");
    assignment_.assign({centroids_.data(), ntotal, d}, squares_.data(), offset / d, n, labels, distances);
  }

 private:
  const PageMatrix& pages_;
  CentroidAssignment& assignment_;
  std::vector<float> no_mean_ = std::vector<float>(static_cast<std::size_t>(d));
  std::vector<float> centroids_;  // [ntotal, d]
  std::vector<float> squares_;    // [ntotal]
};

faiss::ClusteringParameters parameters(const ClusterOptions& options, int64_t pages) {
  faiss::ClusteringParameters result;
  result.niter = options.iterations;
  result.seed = static_cast<int>(options.seed & 0x7fffffffu);
  // FAISS would silently take a sample of the points above 256 a centroid, and warn below 39.
  result.max_points_per_centroid =
      static_cast<int>(std::min<int64_t>(pages, std::numeric_limits<int>::max()));
  result.min_points_per_centroid = 1;
  return result;
}

// Sum of squared distances to the mean page. The pages are centred, so nothing large cancels.
double total_variance_of(const PageMatrix& matrix, ThreadPool& pool) {
  const MatView<const float> pages = matrix.centred();
  std::vector<double> sums(static_cast<std::size_t>(pages.cols));
  constexpr int64_t kColumns = 128;
  pool.parallel_for((pages.cols + kColumns - 1) / kColumns, [&](int64_t block, int) {
    const int64_t first = block * kColumns;
    const int64_t last = std::min(pages.cols, first + kColumns);
    for (int64_t p = 0; p < pages.rows; ++p) {
      const float* row = pages.row(p);
      for (int64_t k = first; k < last; ++k) sums[static_cast<std::size_t>(k)] += double{row[k]};
    }
  });
  double squares = 0.0;
  for (const double norm : matrix.norms(kJoinedHeads).exact_centred) squares += norm * norm;
  double mean_squared = 0.0;
  for (const double sum : sums) mean_squared += sum * sum;
  return std::max(0.0, squares - mean_squared / static_cast<double>(pages.rows));
}

}  // namespace

int64_t cluster_count(int64_t pages, int asked) {
  const int64_t k =
      asked > 0 ? asked : static_cast<int64_t>(std::ceil(std::sqrt(static_cast<double>(pages))));
  return std::clamp<int64_t>(k, 1, pages);
}

std::string cluster_rule(int64_t pages, int asked) {
  if (asked <= 0) return "ceil(sqrt(pages))";
  return asked > pages ? "asked for, limited to the number of pages" : "asked for";
}

Clusters cluster_pages(const PageMatrix& pages, const ClusterOptions& options, ThreadPool& pool,
                       Backend* device) {
  const MatView<const float> points = pages.centred();
  KVA_CHECK(options.k >= 1 && options.k <= points.rows, "between one cluster and one a page");
  const faiss::ClusteringParameters chosen = parameters(options, points.rows);
  faiss::Clustering clustering(static_cast<int>(points.cols), static_cast<int>(options.k), chosen);
  const auto assignment = make_assignment(pages, pool, device);
  NearestCentroid index(pages, *assignment);
  clustering.train(points.rows, points.data, index);

  std::vector<float> ignored(static_cast<std::size_t>(points.rows));
  std::vector<int64_t> nearest(ignored.size());
  index.search(points.rows, points.data, 1, ignored.data(), nearest.data());
  Clusters result;
  result.iterations = static_cast<int>(clustering.iteration_stats.size());
  result.sizes.resize(static_cast<std::size_t>(options.k));
  const std::vector<float> no_mean(static_cast<std::size_t>(points.cols));
  const double squared_unit = pages.unit() * pages.unit();
  result.distances.resize(ignored.size());
  pool.parallel_for(points.rows, [&](int64_t p, int) {
    const std::size_t own = static_cast<std::size_t>(nearest[static_cast<std::size_t>(p)]);
    const float* centroid = clustering.centroids.data() + own * static_cast<std::size_t>(points.cols);
    // From the points: FAISS expands the square, which cancels near a centroid.
    result.distances[static_cast<std::size_t>(p)] =
        pair_products({points.row(p), no_mean.data(), 1, points.cols, pages.unit()},
                      {centroid, no_mean.data(), 1, points.cols, pages.unit()})
            .squared_distance;
  });
  for (const auto own : nearest) ++result.sizes[static_cast<std::size_t>(own)];
  for (double& distance : result.distances) {
    result.inertia += distance;
    distance = std::sqrt(distance);
  }
  for (const double norm : pages.norms(kJoinedHeads).exact_norm)
    result.squared_norms += norm * norm * squared_unit;
  result.total_variance = total_variance_of(pages, pool) * squared_unit;
  std::sort(result.sizes.begin(), result.sizes.end(), std::greater<>());
  std::sort(result.distances.begin(), result.distances.end());
  return result;
}

}  // namespace kva
