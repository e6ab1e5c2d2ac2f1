#include "kernels/cuda_check.cuh"
#include "kernels/packed_math.h"
#include "tests/bench/gpu/pages.h"

namespace kva {
namespace {

__device__ uint64_t random_word(int64_t i) {
  uint64_t z = (static_cast<uint64_t>(i) + 1) * 0x9e3779b97f4a7c15u;
  z = (z ^ (z >> 30)) * 0xbf58476d1ce4e5b9u;
  return z >> 40;
}

__global__ void fill_kernel(uint16_t* words, int64_t count) {
  const int64_t step = int64_t{gridDim.x} * blockDim.x;
  for (int64_t i = int64_t{blockIdx.x} * blockDim.x + threadIdx.x; i < count; i += step)
    words[i] = static_cast<uint16_t>(random_word(i)) & 0xbfffu;
}

__global__ void fill_floats_kernel(float* numbers, int64_t count, float from, float to) {
  const int64_t step = int64_t{gridDim.x} * blockDim.x;
  for (int64_t i = int64_t{blockIdx.x} * blockDim.x + threadIdx.x; i < count; i += step)
    numbers[i] = from + (to - from) * static_cast<float>(random_word(i)) * 0x1p-24f;
}

}  // namespace

DeviceBuffer random_bytes(int64_t bytes) {
  DeviceBuffer buffer(static_cast<std::size_t>(bytes));
  fill_kernel<<<4096, 256>>>(buffer.as<uint16_t>(), bytes / 2);
  cuda_check(cudaGetLastError(), "filling pages");
  return buffer;
}

DeviceBuffer random_floats(int64_t count, float from, float to) {
  DeviceBuffer buffer(static_cast<std::size_t>(count) * sizeof(float));
  fill_floats_kernel<<<1024, 256>>>(buffer.as<float>(), count, from, to);
  cuda_check(cudaGetLastError(), "filling pages");
  return buffer;
}

DeviceBuffer zeros(std::size_t bytes) {
  DeviceBuffer buffer(bytes);
  buffer.fill_zero();
  return buffer;
}

SideFormat page_format(SideKind kind, int32_t width) {
  SideFormat format;
  format.kind = kind;
  format.width = width;
  format.bytes = width * side_bits(kind) / 8;
  if (!is_packed(kind)) return format;
  format.tokens = kPageTokens;
  format.scale_by_token = !is_by_channel(kind);
  format.group = format.scale_by_token ? width : kPageTokens;
  const int32_t scales = format.scale_by_token ? kPageTokens : width;
  format.scales_at = 0;
  format.zeros_at = scales * 2;
  format.codes_at = scales * 4;
  format.bytes = format.codes_at + (is_by_channel(kind) ? width * packed_bytes(side_bits(kind), kPageTokens)
                                                        : kPageTokens * packed_bytes(side_bits(kind), width));
  return format;
}

}  // namespace kva
