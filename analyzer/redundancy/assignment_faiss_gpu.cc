#include <faiss/gpu/GpuIndexFlat.h>
#include <faiss/gpu/StandardGpuResources.h>

#include <algorithm>
#include <unordered_map>
#include <utility>
#include <vector>

#include "analyzer/redundancy/assignment.h"
#include "analyzer/redundancy/nearest_blocks.h"
#include "kernels/check.h"
#include "kernels/device_ops.h"
#include "runtime/kv/device_array.h"

namespace kva {
namespace {

// FAISS multiplies up to 1,024 points by all centroids of an index at once, twice over: 64 MiB, as our own
// search takes. And of so few it tells the first of equally near ones, which it does not of those that it
// takes in pieces.
constexpr int64_t kMostCentroids = 8192;
// Numbers of points in a search: FAISS before 1.7.4 counts them in an int.
constexpr int64_t kMostNumbers = int64_t{1} << 30;

// FAISS's streams and cuBLAS handle, with the backend's memory: so it is counted, refused in the same words,
// and to be had although the device's pool keeps what the analysis has freed before.
class BackendResources : public faiss::gpu::StandardGpuResourcesImpl {
 public:
  explicit BackendResources(Backend& backend) : backend_(backend) {
    setTempMemory(0);    // all of it comes through allocMemory()
    setPinnedMemory(0);  // points are on the device already
  }

  void* allocMemory(const faiss::gpu::AllocRequest& request) override {
    Buffer buffer(backend_, static_cast<int64_t>(request.size), "FAISS's search for the nearest centroids");
    void* memory = buffer.data();
    if (!memory) return nullptr;
    backend_.device()->wait();  // FAISS's stream is another than that which had this memory before
    buffers_.emplace(memory, std::move(buffer));
    return memory;
  }

  void deallocMemory(int device, void* memory) override {
    if (!memory) return;
    syncDefaultStream(device);  // FAISS gives back what it still computes with
    KVA_CHECK(buffers_.erase(memory) == 1, "memory that FAISS was given");
  }

  // FAISS takes turns between two streams; cuBLAS computes the same bits each time on a single one only.
  std::vector<cudaStream_t> getAlternateStreams(int device) override {
    return std::vector<cudaStream_t>(2, getDefaultStream(device));
  }

 private:
  Backend& backend_;
  std::unordered_map<void*, Buffer> buffers_;
};

// Plain f32, which is FAISS's own choice for cuBLAS too: no TF32. Versions differ in what else there is to
// refuse: NVIDIA's libraries with searches of their own.
template <typename Config>
Config plain_search(int device) {
  Config config;
  config.device = device;
  config.useFloat16 = false;
  if constexpr (requires { config.use_raft; }) config.use_raft = false;
  if constexpr (requires { config.use_cuvs; }) config.use_cuvs = false;
  return config;
}

class FaissGpuAssignment : public CentroidAssignment {
 public:
  FaissGpuAssignment(const PageMatrix& pages, Backend& backend, int device)
      : cols_(pages.centred().cols),
        points_(backend, "pages to cluster"),
        index_(std::make_shared<BackendResources>(backend), static_cast<int>(cols_),
               plain_search<faiss::gpu::GpuIndexFlatConfig>(device)) {
    const MatView<const float> rows = pages.centred();
    KVA_CHECK(rows.stride == cols_, "pages one after the other");
    points_.upload({rows.data, static_cast<std::size_t>(rows.rows * cols_)});
    backend.device()->wait();  // FAISS's stream is not ordered after the backend's
  }

  // FAISS works out the centroids' norms itself.
  void assign(MatView<const float> centroids, const float*, int64_t first, int64_t count, int64_t* labels,
              float* distances) override {
    KVA_CHECK(centroids.cols == cols_ && centroids.stride == cols_, "centroids as wide as pages, row by row");
    search_in_blocks(centroids, kMostCentroids, count, labels, distances,
                     [&](MatView<const float> block, int64_t* found, float* at) {
                       index_.reset();
                       index_.add(block.rows, block.data);
                       search(first, count, found, at);
                     });
  }

 private:
  void search(int64_t first, int64_t count, int64_t* labels, float* distances) const {
    const int64_t rows = std::max<int64_t>(kMostNumbers / cols_, 1);
    for (int64_t at = 0; at < count; at += rows)
      index_.search(std::min(rows, count - at), points_.data() + (first + at) * cols_, 1, distances + at,
                    labels + at);
  }

  int64_t cols_;
  DeviceArray<float> points_;
  faiss::gpu::GpuIndexFlatL2 index_;
};

}  // namespace

std::unique_ptr<CentroidAssignment> make_faiss_gpu_assignment(const PageMatrix& pages, Backend& backend) {
  return std::make_unique<FaissGpuAssignment>(pages, backend, backend.device()->cuda_ordinal().value());
}

}  // namespace kva
