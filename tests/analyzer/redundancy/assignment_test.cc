// Nearest centroids against distances in f64, by each search that there is: the CPU's, our own on a device
// and, where the device is CUDA's and this build's FAISS has it, FAISS's GPU index.
#include "analyzer/redundancy/assignment.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <limits>
#include <numeric>
#include <vector>

#include "analyzer/redundancy/clusters.h"
#include "analyzer/redundancy/nearest_blocks.h"
#include "tests/analyzer/redundancy/page_set_builder.h"
#include "tests/runtime/kv/device_under_test.h"

namespace kva {
namespace {

PageMatrix pages_of(const PageSetSpec& spec, ThreadPool& pool) {
  RawPages raw = load_pages(build_page_set(spec, textured_values(23)), 0, SideBasis::kValue, pool);
  const std::vector<float> means = channel_means(raw, pool);
  return PageMatrix(std::move(raw), means, 0.25, pool);
}

double dot(const float* x, const float* y, int64_t count) {
  return std::inner_product(x, x + count, y, 0.0, std::plus<>(),
                            [](float a, float b) { return double{a} * double{b}; });
}

double distance(const float* x, const float* y, int64_t count) {
  return dot(x, x, count) - 2.0 * dot(x, y, count) + dot(y, y, count);
}

// By which |x|² - 2 x·y + |y|² in f32 is off at most: each of the three is a sum of `count` products,
// whatever its order, and two more roundings add them.
double rounding(const float* x, const float* y, int64_t count) {
  const double norms = std::sqrt(dot(x, x, count)) + std::sqrt(dot(y, y, count));
  return static_cast<double>(count + 3) * 0x1p-24 * norms * norms;
}

// Centroids that are pages, half of them twice: the first of two equal ones is nearest.
std::vector<float> some_pages(MatView<const float> points, int64_t count) {
  std::vector<float> centroids;
  for (int64_t c = 0; c < count; ++c) {
    const float* page = points.row((c < count / 2 ? c : c - count / 2) * 7 % points.rows);
    centroids.insert(centroids.end(), page, page + points.cols);
  }
  return centroids;
}

struct Found {
  std::vector<int64_t> labels;
  std::vector<float> distances;
};

Found assigned(CentroidAssignment& assignment, MatView<const float> centroids, int64_t first, int64_t count) {
  std::vector<float> squares;
  for (int64_t c = 0; c < centroids.rows; ++c)
    squares.push_back(static_cast<float>(dot(centroids.row(c), centroids.row(c), centroids.cols)));
  Found found{std::vector<int64_t>(static_cast<std::size_t>(count), -1),
              std::vector<float>(static_cast<std::size_t>(count), -1.0f)};
  assignment.assign(centroids, squares.data(), first, count, found.labels.data(), found.distances.data());
  return found;
}

void expect_nearest(const Found& found, MatView<const float> points, MatView<const float> centroids,
                    int64_t first) {
  for (std::size_t i = 0; i < found.labels.size(); ++i) {
    const float* point = points.row(first + static_cast<int64_t>(i));
    const int64_t label = found.labels[i];
    ASSERT_GE(label, 0) << "page " << i;
    ASSERT_LT(label, centroids.rows) << "page " << i;
    double least = std::numeric_limits<double>::infinity();
    double widest = 0.0;
    for (int64_t c = 0; c < centroids.rows; ++c) {
      least = std::min(least, distance(point, centroids.row(c), points.cols));
      widest = std::max(widest, rounding(point, centroids.row(c), points.cols));
    }
    const double own = distance(point, centroids.row(label), points.cols);
    EXPECT_LE(own, least + 2.0 * widest) << "page " << i;
    EXPECT_NEAR(double{found.distances[i]}, own, widest) << "page " << i;
    const auto equal = [&](int64_t c) {
      return std::equal(centroids.row(c), centroids.row(c) + centroids.cols, centroids.row(label));
    };
    for (int64_t c = 0; c < label; ++c) EXPECT_FALSE(equal(c)) << "page " << i << " has a first " << c;
  }
}

void expect_nearest_for_all(Backend* device) {
  ThreadPool pool(2);
  const auto check = [&](const PageSetSpec& spec, std::initializer_list<int64_t> counts) {
    const PageMatrix pages = pages_of(spec, pool);
    const MatView<const float> points = pages.centred();
    const auto assignment = make_assignment(pages, pool, device);
    const int64_t first = points.rows / 3;
    for (const int64_t k : counts) {
      const std::vector<float> values = some_pages(points, k);
      const MatView<const float> centroids(values.data(), k, points.cols);
      SCOPED_TRACE(::testing::Message() << points.rows << " pages of " << points.cols << ", k = " << k);
      expect_nearest(assigned(*assignment, centroids, first, points.rows - first), points, centroids, first);
    }
  };
  check({.sets = {{1}}}, {1, 2});
  check({.sets = {{60}}}, {1, 8200});
  check({.kv_heads = 2, .head_dim = 16, .sets = {{150, 53}}}, {2, 33, 203});
  check({.kv_heads = 3, .head_dim = 40, .page_tokens = 4, .sets = {{700}}}, {5, 64});
}

TEST(Assignment, OnTheCpu) { expect_nearest_for_all(nullptr); }

class AssignmentOnADevice : public ::testing::Test {
 protected:
  void SetUp() override {
    auto device = device_under_test();
    if (!device) GTEST_SKIP() << "no device";
    backend = make_device_backend(std::move(device));
  }

  std::unique_ptr<Backend> backend;
};

TEST_F(AssignmentOnADevice, FindsTheNearest) {
  expect_nearest_for_all(backend.get());
  EXPECT_EQ(backend->allocated_bytes(), 0);
}

TEST_F(AssignmentOnADevice, FaissIsForCudaAlone) {
  EXPECT_EQ(nearest_search(nullptr), NearestSearch::kCpu);
  EXPECT_NE(nearest_search(backend.get()), NearestSearch::kCpu);
  EXPECT_TRUE(backend->device()->cuda_ordinal() || nearest_search(backend.get()) == NearestSearch::kDevice);
}

// FAISS's search and our own, of the same pages on the same device. What FAISS holds there is counted.
TEST_F(AssignmentOnADevice, FaissFindsWhatWeFind) {
  const NearestSearch chosen = nearest_search(backend.get());
  if (chosen != NearestSearch::kFaissGpu)
    GTEST_SKIP() << "needs CUDA's device and a FAISS with a GPU index; here: " << nearest_search_name(chosen);
  ThreadPool pool(2);
  const PageMatrix pages = pages_of({.kv_heads = 2, .head_dim = 64, .sets = {{900}}}, pool);
  const MatView<const float> points = pages.centred();
  const std::vector<float> values = some_pages(points, 64);
  const MatView<const float> centroids(values.data(), 64, points.cols);
  const Found ours = assigned(*make_device_assignment(pages, *backend), centroids, 0, points.rows);
  const auto by_faiss = make_assignment(pages, pool, backend.get());
  const Found theirs = assigned(*by_faiss, centroids, 0, points.rows);
  EXPECT_GE(backend->allocated_bytes(), (points.rows + centroids.rows) * points.cols * 4);
  for (std::size_t i = 0; i < ours.labels.size(); ++i) {
    const float* point = points.row(static_cast<int64_t>(i));
    const float* own = centroids.row(ours.labels[i]);
    const float* other = centroids.row(theirs.labels[i]);
    EXPECT_NEAR(distance(point, own, points.cols), distance(point, other, points.cols),
                rounding(point, own, points.cols) + rounding(point, other, points.cols))
        << "page " << i;
  }
}

TEST_F(AssignmentOnADevice, ClustersTheSameTwice) {
  ThreadPool pool(2);
  const PageMatrix pages = pages_of({.kv_heads = 2, .head_dim = 16, .sets = {{800}}}, pool);
  const ClusterOptions options{.k = 29, .iterations = 5};
  const Clusters once = cluster_pages(pages, options, pool, backend.get());
  const Clusters again = cluster_pages(pages, options, pool, backend.get());
  EXPECT_EQ(once.inertia, again.inertia);
  EXPECT_EQ(once.sizes, again.sizes);
  EXPECT_EQ(once.distances, again.distances);
}

// Blocks of every length, with centroids that come twice in different blocks.
TEST(SearchInBlocks, IsTheSearchOfAll) {
  ThreadPool pool(1);
  const PageMatrix pages = pages_of({.sets = {{50}}}, pool);
  const MatView<const float> points = pages.centred();
  const std::vector<float> values = some_pages(points, 11);
  const MatView<const float> centroids(values.data(), 11, points.cols);
  const auto search = [&](MatView<const float> block, int64_t* labels, float* distances) {
    for (int64_t p = 0; p < points.rows; ++p) {
      distances[p] = std::numeric_limits<float>::infinity();
      for (int64_t c = 0; c < block.rows; ++c) {
        const auto at = static_cast<float>(distance(points.row(p), block.row(c), points.cols));
        if (at < distances[p]) {
          distances[p] = at;
          labels[p] = c;
        }
      }
    }
  };
  Found whole{std::vector<int64_t>(50), std::vector<float>(50)};
  search(centroids, whole.labels.data(), whole.distances.data());
  for (int64_t most = 1; most <= 12; ++most) {
    Found found{std::vector<int64_t>(50), std::vector<float>(50)};
    search_in_blocks(centroids, most, points.rows, found.labels.data(), found.distances.data(), search);
    EXPECT_EQ(found.labels, whole.labels) << "blocks of " << most;
    EXPECT_EQ(found.distances, whole.distances) << "blocks of " << most;
  }
}

}  // namespace
}  // namespace kva
