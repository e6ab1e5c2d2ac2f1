#include <span>
#include <vector>

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

__global__ void copy_list_kernel(const uint16_t* list, int32_t words, std::byte* to, int64_t stride,
                                 int64_t count) {
  for (int64_t page = blockIdx.x; page < count; page += gridDim.x)
    for (auto i = static_cast<int32_t>(threadIdx.x); i < words; i += static_cast<int32_t>(blockDim.x))
      reinterpret_cast<uint16_t*>(to + page * stride)[i] = list[i];
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

SideFormat page_format(SideKind kind, int32_t width, ScaleAxis axis, int32_t outliers) {
  SideFormat format;
  format.kind = kind;
  format.width = width;
  format.bytes = width * side_bits(kind) / 8;
  if (!is_packed(kind)) return format;
  format.tokens = kPageTokens;
  format.scale_by_token = axis == ScaleAxis::kToken;
  format.group = format.scale_by_token ? width : kPageTokens;
  const int32_t scales = format.scale_by_token ? kPageTokens : width;
  format.scales_at = 0;
  format.zeros_at = scales * 2;
  format.codes_at = scales * 4;
  format.outliers = outliers;
  format.place_bits = width > 64 ? 13 : 12;
  format.places_at =
      format.codes_at + (is_by_channel(kind) ? width * packed_bytes(side_bits(kind), kPageTokens)
                                             : kPageTokens * packed_bytes(side_bits(kind), width));
  format.outlier_values_at = format.places_at + (outliers * format.place_bits + 15) / 16 * 2;
  format.bytes = (format.outlier_values_at + outliers * 2 + 15) / 16 * 16;
  return format;
}

int32_t outliers_of(int32_t width) { return (kPageTokens * width + 99) / 100; }

void put_places(std::byte* payloads, int64_t stride, int64_t count, const SideFormat& format) {
  if (format.outliers == 0) return;
  std::vector<uint16_t> list(static_cast<std::size_t>(format.outlier_values_at - format.places_at) / 2);
  for (int32_t i = 0; i < format.outliers; ++i) {
    const int32_t place = static_cast<int32_t>(int64_t{i} * kPageTokens * format.width / format.outliers);
    for (int32_t bit = 0; bit < format.place_bits; ++bit) {
      const auto at = static_cast<std::size_t>(i * format.place_bits + bit);
      list[at / 16] = static_cast<uint16_t>(list[at / 16] | (place >> bit & 1) << (at % 16));
    }
  }
  const DeviceBuffer there = DeviceBuffer::holding(std::span<const uint16_t>(list));
  copy_list_kernel<<<4096, 128>>>(there.as<uint16_t>(), static_cast<int32_t>(list.size()),
                                  payloads + format.places_at, stride, count);
  cuda_check(cudaGetLastError(), "placing outliers");
  cuda_check(cudaDeviceSynchronize(), "placing outliers");
}

}  // namespace kva
