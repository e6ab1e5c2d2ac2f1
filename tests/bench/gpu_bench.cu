// What the CUDA kernels move and how fast, beside a device-to-device copy of the same machine: a table in
// Markdown on stdout. Each case has more than 1 GiB of distinct pages, far beyond the caches; times are
// medians of repeated calls by CUDA events, after a warm-up. Without a device: one line, exit code 1. See
// scripts/gpu_check.
#include <algorithm>
#include <cstdio>
#include <exception>
#include <string>
#include <vector>

#include "kernels/attention_work.h"
#include "kernels/cuda_check.cuh"
#include "kernels/device_buffer.h"
#include "kernels/pack_cuda.h"
#include "kernels/packed_math.h"
#include "kernels/paged_attention_cuda.h"

namespace kva {
namespace {

constexpr int64_t kLeastBytes = int64_t{1} << 30;
constexpr int32_t kPageTokens = 64;
constexpr int32_t kContext = 32768;
constexpr int32_t kKvHeads = 8;
constexpr int kRepeats = 21;

// Random 16-bit words that are f16 and bf16 numbers below 2 in size, whatever reads them.
__global__ void fill_kernel(uint16_t* words, int64_t count) {
  const int64_t step = int64_t{gridDim.x} * blockDim.x;
  for (int64_t i = int64_t{blockIdx.x} * blockDim.x + threadIdx.x; i < count; i += step) {
    uint64_t z = (static_cast<uint64_t>(i) + 1) * 0x9e3779b97f4a7c15u;
    z = (z ^ (z >> 30)) * 0xbf58476d1ce4e5b9u;
    words[i] = static_cast<uint16_t>(z >> 40) & 0xbfffu;
  }
}

DeviceBuffer random_bytes(int64_t bytes) {
  DeviceBuffer buffer(static_cast<std::size_t>(bytes));
  fill_kernel<<<4096, 256>>>(buffer.as<uint16_t>(), bytes / 2);
  cuda_check(cudaGetLastError(), "filling pages");
  return buffer;
}

class Event {
 public:
  Event() { cuda_check(cudaEventCreate(&event_), "making an event"); }
  ~Event() { (void)cudaEventDestroy(event_); }
  Event(const Event&) = delete;
  Event& operator=(const Event&) = delete;
  void record() { cuda_check(cudaEventRecord(event_), "recording an event"); }
  float ms_since(const Event& start) const {
    cuda_check(cudaEventSynchronize(event_), "waiting for the device");
    float ms = 0.0f;
    cuda_check(cudaEventElapsedTime(&ms, start.event_, event_), "reading a time");
    return ms;
  }

 private:
  cudaEvent_t event_ = nullptr;
};

// Median milliseconds of a call.
template <class Body>
double median_ms(const Body& body) {
  for (int i = 0; i < 3; ++i) body();
  Event start, end;
  std::vector<float> times;
  for (int i = 0; i < kRepeats; ++i) {
    start.record();
    body();
    end.record();
    times.push_back(end.ms_since(start));
  }
  std::nth_element(times.begin(), times.begin() + kRepeats / 2, times.end());
  return static_cast<double>(times[kRepeats / 2]);
}

// GB/s of a copy, counting bytes read and written.
double copy_rate() {
  const DeviceBuffer from = random_bytes(2 * kLeastBytes), to(static_cast<std::size_t>(2 * kLeastBytes));
  const double ms = median_ms([&] {
    cuda_check(cudaMemcpyAsync(to.as<void>(), from.as<void>(), from.bytes(), cudaMemcpyDeviceToDevice),
               "copying");
  });
  return 2.0 * static_cast<double>(from.bytes()) / ms / 1e6;
}

void print_row(const std::string& what, double bytes, double ms, double copy) {
  const double rate = bytes / ms / 1e6;
  std::printf("| %s | %.3f | %.3f | %.0f | %.0f%% |\n", what.c_str(), bytes / 1e9, ms, rate,
              100.0 * rate / copy);
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

// One token of several sequences against 32,768 tokens each.
void attention_case(const std::string& name, SideKind keys, SideKind values, int32_t head_dim, int32_t group,
                    double copy) {
  const std::vector<SideFormat> formats = {page_format(keys, head_dim), page_format(values, head_dim)};
  const int64_t key_bytes = side_bytes(formats[0], kPageTokens),
                value_bytes = side_bytes(formats[1], kPageTokens);
  constexpr int32_t kPages = kContext / kPageTokens;
  const int64_t of_sequence = int64_t{kKvHeads} * kPages * (key_bytes + value_bytes);
  const auto sequences = static_cast<int32_t>((kLeastBytes + of_sequence - 1) / of_sequence);
  const DeviceBuffer payloads = random_bytes(sequences * of_sequence);
  std::vector<DevicePage> pages;
  std::vector<AttentionTable> tables;
  const std::byte* at = payloads.as<std::byte>();
  for (int32_t sequence = 0; sequence < sequences; ++sequence)
    for (int32_t head = 0; head < kKvHeads; ++head) {
      tables.push_back({static_cast<int32_t>(pages.size()), kPages, head, sequence, 1, kContext - 1});
      for (int32_t p = 0; p < kPages; ++p, at += key_bytes + value_bytes) {
        DevicePage page;
        page.keys = at;
        page.values = at + key_bytes;
        page.tokens = kPageTokens;
        page.start = p * kPageTokens;
        page.value_format = 1;
        pages.push_back(page);
      }
    }
  const AttentionPlan plan = plan_attention(pages, formats, tables, {.group = group});
  const int64_t width = int64_t{kKvHeads} * group * head_dim;
  const DeviceBuffer device_pages = DeviceBuffer::holding(std::span<const DevicePage>(pages)),
                     device_formats = DeviceBuffer::holding(std::span<const SideFormat>(formats)),
                     items = DeviceBuffer::holding(std::span<const AttentionItem>(plan.items)),
                     list = DeviceBuffer::holding(std::span<const int32_t>(plan.page_list)),
                     merges = DeviceBuffer::holding(std::span<const AttentionMerge>(plan.merges)),
                     states(static_cast<std::size_t>(plan.states) * static_cast<std::size_t>(head_dim + 2) *
                            4),
                     queries = random_bytes(sequences * width * 4),
                     out(static_cast<std::size_t>(sequences * width) * 4);
  AttentionJob job;
  job.items = items.as<AttentionItem>();
  job.page_list = list.as<int32_t>();
  job.pages = device_pages.as<DevicePage>();
  job.formats = device_formats.as<SideFormat>();
  job.queries = queries.as<float>();
  job.query_stride = width;
  job.head_dim = head_dim;
  job.group = group;
  job.scale = 0.1f;
  job.longest_page = plan.longest_page;
  job.state_values = states.as<float>();
  job.state_max = job.state_values + int64_t{plan.states} * head_dim;
  job.state_sum = job.state_max + plan.states;
  const double ms = median_ms(
      [&] { attend_cuda(plan, job, merges.as<AttentionMerge>(), out.as<float>(), width, nullptr); });
  print_row(
      "attention, " + name + ", head_dim " + std::to_string(head_dim) + ", group " + std::to_string(group),
      static_cast<double>(attention_bytes(plan, pages, formats, head_dim)), ms, copy);
}

// Pages of f16, as they fill. outliers: of a page side.
void pack_case(const std::string& name, SideKind kind, int32_t outliers, double copy) {
  constexpr int32_t kWidth = 128;
  constexpr int64_t kPageBytes = int64_t{kPageTokens} * kWidth * 2;
  constexpr auto kSides = static_cast<int32_t>(kLeastBytes / kPageBytes);
  SideFormat format = page_format(kind, kWidth);
  format.outliers = outliers;
  format.place_bits = 13;  // of 8,192 numbers
  format.places_at = format.bytes;
  format.outlier_values_at = format.places_at + (outliers * format.place_bits + 15) / 16 * 2;
  format.bytes = (format.outlier_values_at + outliers * 2 + 15) / 16 * 16;
  const DeviceBuffer pages = random_bytes(kSides * kPageBytes),
                     payloads(static_cast<std::size_t>(kSides) * static_cast<std::size_t>(format.bytes)),
                     scratch(static_cast<std::size_t>(kSides * pack_scratch(format).bytes + 16)),
                     refused(sizeof(int32_t));
  std::vector<PackSide> sides;
  for (int32_t i = 0; i < kSides; ++i)
    sides.push_back({.source = pages.as<std::byte>() + i * kPageBytes,
                     .payload = payloads.as<std::byte>() + int64_t{i} * format.bytes});
  const DeviceBuffer sides_there = DeviceBuffer::holding(std::span<const PackSide>(sides));
  const double ms = median_ms([&] {
    pack_cuda({.format = format,
               .sides = sides_there.as<PackSide>(),
               .count = kSides,
               .scratch = scratch.as<std::byte>(),
               .refused = refused.as<int32_t>()},
              nullptr);
  });
  print_row("quantize and pack, " + name, static_cast<double>(pages.bytes() + payloads.bytes()), ms, copy);
}

void run() {
  const double copy = copy_rate();
  std::printf("Copy on the device: %.0f GB/s, bytes read and written.\n\n", copy);
  std::printf("| operation | GB a call | ms | GB/s | share of copy |\n| --- | --- | --- | --- | --- |\n");
  for (const int32_t head_dim : {64, 128})
    for (const int32_t group : {1, 4}) {
      attention_case("f16", SideKind::kF16, SideKind::kF16, head_dim, group, copy);
      attention_case("bf16", SideKind::kBF16, SideKind::kBF16, head_dim, group, copy);
      attention_case("fp8 e4m3", SideKind::kE4M3, SideKind::kE4M3, head_dim, group, copy);
      attention_case("8 bits by token", SideKind::kBits8, SideKind::kBits8, head_dim, group, copy);
      attention_case("4 bits by token", SideKind::kBits4, SideKind::kBits4, head_dim, group, copy);
      attention_case("4 bits, keys by channel", SideKind::kBits4ByChannel, SideKind::kBits4, head_dim, group,
                     copy);
      attention_case("2 bits, keys by channel", SideKind::kBits2ByChannel, SideKind::kBits2, head_dim, group,
                     copy);
    }
  pack_case("4 bits by token", SideKind::kBits4, 0, copy);
  pack_case("4 bits by channel", SideKind::kBits4ByChannel, 0, copy);
  pack_case("4 bits by channel, 1% outliers", SideKind::kBits4ByChannel, 82, copy);
}

}  // namespace
}  // namespace kva

int main() {
  if (kva::cuda_device_count() == 0) {
    std::fprintf(stderr, "gpu_bench: no CUDA device here\n");
    return 1;
  }
  try {
    kva::run();
  } catch (const std::exception& error) {
    std::fprintf(stderr, "gpu_bench: %s\n", error.what());
    return 1;
  }
  return 0;
}
