#include <cub/device/device_radix_sort.cuh>

#include "kernels/check.h"
#include "kernels/cuda_check.cuh"
#include "kernels/decoder_cuda.h"
#include "kernels/device_warp.cuh"

namespace kva {
namespace {

constexpr int32_t kPart = 4096;  // logits of one warp
constexpr int64_t kAligned = 256;

int32_t parts_of(int32_t vocabulary) { return (vocabulary + kPart - 1) / kPart; }
int64_t aligned(int64_t bytes) { return (bytes + kAligned - 1) / kAligned * kAligned; }

// Where in the workspace what is, in bytes.
struct Places {
  Places(int32_t vocabulary, bool sorts) : parts_at(aligned(int64_t{sizeof(Likeliest)})) {
    keys_at = parts_at + aligned(parts_of(vocabulary) * int64_t{sizeof(Likeliest)});
    if (!sorts) {
      end = keys_at;
      return;
    }
    const int64_t words = aligned(vocabulary * int64_t{4});
    sorted_keys_at = keys_at + words;
    ids_at = sorted_keys_at + words;
    order_at = ids_at + words;
    sort_at = order_at + words;
    cuda_check(
        cub::DeviceRadixSort::SortPairs(nullptr, sort_bytes, static_cast<const uint32_t*>(nullptr),
                                        static_cast<uint32_t*>(nullptr), static_cast<const int32_t*>(nullptr),
                                        static_cast<int32_t*>(nullptr), vocabulary),
        "asking for a sort's workspace");
    end = sort_at + aligned(static_cast<int64_t>(sort_bytes));
  }

  int64_t parts_at;
  int64_t keys_at = 0;
  int64_t sorted_keys_at = 0;
  int64_t ids_at = 0;
  int64_t order_at = 0;
  int64_t sort_at = 0;
  std::size_t sort_bytes = 0;
  int64_t end = 0;
};

bool sorts(const SampleJob& job) {
  return job.temperature > 0.0 && ((job.top_k > 0 && job.top_k < job.vocabulary) || job.top_p < 1.0);
}

// Warp w finds the most likely of its part.
__global__ void likeliest_kernel(const float* logits, int32_t vocabulary, Likeliest* of_parts) {
  DeviceWarp warp;
  const int32_t first = static_cast<int32_t>(blockIdx.x) * kPart;
  const int32_t count = vocabulary - first < kPart ? vocabulary - first : kPart;
  const Likeliest best = likeliest_of(warp, logits, first, count);
  if (warp.lane() == 0) of_parts[blockIdx.x] = best;
}

// One warp. Parts are in order of token, and so few that each lane looks at all of them.
__global__ void choose_kernel(SampleJob job, const Likeliest* of_parts, int32_t parts, int32_t* token) {
  __shared__ SampleState state;
  DeviceWarp warp;
  Likeliest best = of_parts[0];
  for (int32_t i = 1; i < parts; ++i)
    if (likelier(of_parts[i], best)) best = of_parts[i];
  int32_t chosen = token_or_fault(best);
  if (chosen >= 0 && job.temperature > 0.0) chosen = sample(warp, job, best, state);
  if (warp.lane() == 0) *token = chosen;
}

__global__ void keys_kernel(const float* logits, int32_t vocabulary, uint32_t* keys, int32_t* ids) {
  const int32_t i = static_cast<int32_t>(blockIdx.x * blockDim.x + threadIdx.x);
  if (i >= vocabulary) return;
  keys[i] = descending_key(ranked(logits[i]));
  ids[i] = i;
}

}  // namespace

int64_t choose_workspace_bytes(int32_t vocabulary, bool sorts_too) {
  return Places(vocabulary, sorts_too).end;
}

void choose_cuda(const SampleJob& job, void* workspace, int64_t workspace_bytes, int32_t* token,
                 void* stream) {
  KVA_CHECK(job.vocabulary > 0 && job.vocabulary <= kMostVocabulary, "a vocabulary of up to 2^24 tokens");
  const Places at(job.vocabulary, sorts(job));
  KVA_CHECK(workspace_bytes >= at.end, "as much workspace as choose_workspace_bytes() says");
  const auto on = static_cast<cudaStream_t>(stream);
  auto* base = static_cast<char*>(workspace);
  auto* of_parts = reinterpret_cast<Likeliest*>(base + at.parts_at);
  const int32_t parts = parts_of(job.vocabulary);
  likeliest_kernel<<<static_cast<unsigned int>(parts), 32, 0, on>>>(job.logits, job.vocabulary, of_parts);
  cuda_check(cudaGetLastError(), "launching the search for the likeliest token");
  SampleJob ordered = job;
  ordered.order = nullptr;
  if (sorts(job)) {
    auto* keys = reinterpret_cast<uint32_t*>(base + at.keys_at);
    auto* sorted_keys = reinterpret_cast<uint32_t*>(base + at.sorted_keys_at);
    auto* ids = reinterpret_cast<int32_t*>(base + at.ids_at);
    auto* order = reinterpret_cast<int32_t*>(base + at.order_at);
    constexpr int kThreads = 256;
    const int32_t blocks = (job.vocabulary + kThreads - 1) / kThreads;
    keys_kernel<<<static_cast<unsigned int>(blocks), kThreads, 0, on>>>(job.logits, job.vocabulary, keys,
                                                                        ids);
    cuda_check(cudaGetLastError(), "launching the sort's keys");
    std::size_t sort_bytes = at.sort_bytes;
    cuda_check(cub::DeviceRadixSort::SortPairs(base + at.sort_at, sort_bytes, keys, sorted_keys, ids, order,
                                               job.vocabulary, 0, 32, on),
               "sorting tokens");
    ordered.order = order;
  }
  choose_kernel<<<1, 32, 0, on>>>(ordered, of_parts, parts, token);
  cuda_check(cudaGetLastError(), "launching the choice of a token");
}

}  // namespace kva
