#include "analyzer/redundancy/assignment.h"

#include "kernels/check.h"
#include "kernels/device_ops.h"

namespace kva {
namespace {

constexpr bool kHasFaissGpu = KVA_FAISS_GPU;

}  // namespace

NearestSearch nearest_search(Backend* device) {
  if (!device) return NearestSearch::kCpu;
  KVA_CHECK(device->device() != nullptr, "memory of a device");
  return kHasFaissGpu && device->device()->cuda_ordinal() ? NearestSearch::kFaissGpu : NearestSearch::kDevice;
}

std::string_view nearest_search_name(NearestSearch search) {
  switch (search) {
    case NearestSearch::kCpu: return "kvanalyze's search on the CPU";
    case NearestSearch::kDevice: return "kvanalyze's search on the device";
    case NearestSearch::kFaissGpu: break;
  }
  return "FAISS's GPU index";
}

std::unique_ptr<CentroidAssignment> make_assignment(const PageMatrix& pages, ThreadPool& pool,
                                                    Backend* device) {
  const NearestSearch search = nearest_search(device);
  if (search == NearestSearch::kCpu) return make_cpu_assignment(pages, pool);
  if constexpr (kHasFaissGpu)
    if (search == NearestSearch::kFaissGpu) return make_faiss_gpu_assignment(pages, *device);
  return make_device_assignment(pages, *device);
}

}  // namespace kva
