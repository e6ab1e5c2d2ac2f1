// What the CUDA kernels move and how fast, beside a device-to-device copy of the same machine, and comparing
// pages beside the product and the counts that it cannot do without: tables in Markdown on stdout. Each case
// has more than 1 GiB of distinct pages, far beyond the caches; times are medians of repeated calls by CUDA
// events, after a warm-up. Without a device: one line, exit code 1. See scripts/gpu_check.
#include <algorithm>
#include <cstdio>
#include <exception>
#include <string>
#include <vector>

#include "kernels/attention_work.h"
#include "kernels/cuda_check.cuh"
#include "kernels/device_buffer.h"
#include "kernels/matmul_cuda.h"
#include "kernels/pack_cuda.h"
#include "kernels/packed_math.h"
#include "kernels/paged_attention_cuda.h"
#include "kernels/similarity_cuda.h"

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

struct AttentionTimes {
  double ms = 0.0;
  double bytes = 0.0;
  double flops = 0.0;
};

// The last `tokens` tokens of each of several sequences against 32,768 tokens.
AttentionTimes time_attention(SideKind keys, SideKind values, int32_t head_dim, int32_t sequences,
                              int32_t tokens, const AttentionLimits& limits) {
  const std::vector<SideFormat> formats = {page_format(keys, head_dim), page_format(values, head_dim)};
  const int64_t key_bytes = side_bytes(formats[0], kPageTokens),
                value_bytes = side_bytes(formats[1], kPageTokens);
  constexpr int32_t kPages = kContext / kPageTokens;
  const DeviceBuffer payloads =
      random_bytes(sequences * int64_t{kKvHeads} * kPages * (key_bytes + value_bytes));
  std::vector<DevicePage> pages;
  std::vector<AttentionTable> tables;
  const std::byte* at = payloads.as<std::byte>();
  for (int32_t sequence = 0; sequence < sequences; ++sequence)
    for (int32_t head = 0; head < kKvHeads; ++head) {
      tables.push_back(
          {static_cast<int32_t>(pages.size()), kPages, head, sequence * tokens, tokens, kContext - tokens});
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
  const AttentionPlan plan = plan_attention(pages, formats, tables, limits);
  const int64_t width = int64_t{kKvHeads} * limits.group * head_dim;
  const int64_t numbers = int64_t{sequences} * tokens * width;
  const DeviceBuffer device_pages = DeviceBuffer::holding(std::span<const DevicePage>(pages)),
                     device_formats = DeviceBuffer::holding(std::span<const SideFormat>(formats)),
                     items = DeviceBuffer::holding(std::span<const AttentionItem>(plan.items)),
                     list = DeviceBuffer::holding(std::span<const int32_t>(plan.page_list)),
                     merges = DeviceBuffer::holding(std::span<const AttentionMerge>(plan.merges)),
                     states(static_cast<std::size_t>(plan.states) * static_cast<std::size_t>(head_dim + 2) *
                            4),
                     queries = random_bytes(numbers * 4), out(static_cast<std::size_t>(numbers) * 4);
  AttentionJob job;
  job.items = items.as<AttentionItem>();
  job.page_list = list.as<int32_t>();
  job.pages = device_pages.as<DevicePage>();
  job.formats = device_formats.as<SideFormat>();
  job.queries = queries.as<float>();
  job.query_stride = width;
  job.head_dim = head_dim;
  job.group = limits.group;
  job.scale = 0.1f;
  job.longest_page = plan.longest_page;
  job.state_values = states.as<float>();
  job.state_max = job.state_values + int64_t{plan.states} * head_dim;
  job.state_sum = job.state_max + plan.states;
  const double ms = median_ms(
      [&] { attend_cuda(plan, job, merges.as<AttentionMerge>(), out.as<float>(), width, nullptr); });
  return {ms, static_cast<double>(attention_bytes(plan, pages, formats, head_dim)),
          static_cast<double>(attention_flops(plan, pages, limits.group, head_dim))};
}

// One token of as many sequences as it takes to read more than the caches hold.
void attention_case(const std::string& name, SideKind keys, SideKind values, int32_t head_dim, int32_t group,
                    double copy) {
  const int64_t of_page = side_bytes(page_format(keys, head_dim), kPageTokens) +
                          side_bytes(page_format(values, head_dim), kPageTokens);
  const int64_t of_sequence = int64_t{kKvHeads} * (kContext / kPageTokens) * of_page;
  const auto sequences = static_cast<int32_t>((kLeastBytes + of_sequence - 1) / of_sequence);
  const AttentionTimes times = time_attention(keys, values, head_dim, sequences, 1, {.group = group});
  print_row(
      "attention, " + name + ", head_dim " + std::to_string(head_dim) + ", group " + std::to_string(group),
      times.bytes, times.ms, copy);
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
                     scratch(static_cast<std::size_t>(kSides * pack_scratch({.format = format}).bytes + 16)),
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

// What other methods than quant make of pages of f16. shared: f16 numbers of what sides share.
void coding_case(const std::string& name, PackJob job, int64_t shared, double copy) {
  const int64_t page_bytes = int64_t{kPageTokens} * job.format.width * 2;
  const auto count = static_cast<int32_t>(kLeastBytes / page_bytes);
  const int64_t side = side_bytes(job.format, kPageTokens);
  const bool scales = job.format.kind == SideKind::kScaledBase;
  const DeviceBuffer pages = random_bytes(count * page_bytes),
                     others = random_bytes(job.blends || scales ? count * page_bytes : 16),
                     numbers = random_bytes(std::max<int64_t>(shared, 1) * 2),
                     basis = random_bytes(int64_t{job.format.width} * job.format.width * 2);
  job.format.shared[kSharedNumbers] = numbers.as<void>();
  if (job.format.on_basis) job.basis = basis.as<void>();
  const DeviceBuffer payloads(static_cast<std::size_t>(count * ((side + 15) / 16 * 16))),
      scratch(static_cast<std::size_t>(count * pack_scratch(job).bytes + 16)), refused(sizeof(int32_t));
  std::vector<PackSide> sides;
  for (int32_t i = 0; i < count; ++i)
    sides.push_back({.source = pages.as<std::byte>() + i * page_bytes,
                     .other_source = others.as<std::byte>() + (job.blends ? i * page_bytes : 0),
                     .base = others.as<std::byte>() + (scales ? i * page_bytes : 0),
                     .payload = payloads.as<std::byte>() + i * ((side + 15) / 16 * 16)});
  const DeviceBuffer sides_there = DeviceBuffer::holding(std::span<const PackSide>(sides));
  job.tokens = kPageTokens;
  job.sides = sides_there.as<PackSide>();
  job.count = count;
  job.scratch = scratch.as<std::byte>();
  job.refused = refused.as<int32_t>();
  const double ms = median_ms([&] { pack_cuda(job, nullptr); });
  const double read = static_cast<double>(pages.bytes()) * (job.blends || scales ? 2.0 : 1.0);
  print_row("code, " + name, read + static_cast<double>(count) * static_cast<double>(side), ms, copy);
}

void coding_cases(double copy) {
  constexpr int32_t kWidth = 128;
  SideFormat levels;
  levels.kind = SideKind::kLevels4;
  levels.width = levels.group = kWidth;
  levels.tokens = kPageTokens;
  levels.scales_at = 0;
  levels.codes_at = kPageTokens * 2;
  levels.bytes = levels.codes_at + kPageTokens * kWidth / 2;
  SideFormat turned = levels;
  turned.on_basis = true;
  levels.zeros_at = kPageTokens * 2;
  levels.codes_at += kPageTokens * 2;
  levels.bytes += kPageTokens * 2;
  coding_case("nuq, 4 bits", {.format = levels}, 16, copy);
  coding_case("turboquant, 4 bits", {.format = turned}, 16, copy);
  SideFormat centroids;
  centroids.kind = SideKind::kCentroids;
  centroids.width = kWidth;
  centroids.tokens = kPageTokens;
  centroids.parts = 16;
  centroids.bytes = kPageTokens * centroids.parts;
  coding_case("pq, 16 parts of 8 bits", {.format = centroids}, int64_t{kWidth} << 8, copy);
  SideFormat directions;
  directions.width = kWidth;
  directions.bytes = kWidth * 2;
  coding_case("minicache, directions", {.format = directions, .blends = true, .share = 0.6}, 0, copy);
  SideFormat along;
  along.kind = SideKind::kScaledBase;
  along.width = kWidth;
  along.tokens = kPageTokens;
  along.factors_at = 0;
  along.retained = 4;
  along.retained_at = kPageTokens * 2;
  along.retained_rows_at = along.retained_at + along.retained * 2;
  along.bytes = along.retained_rows_at + along.retained * kWidth * 2;
  coding_case("minicache, lengths", {.format = along, .base = directions}, 0, copy);
}

// A tile of all pairs as the analyzer takes it (analyzer/redundancy/all_pairs_device.cc).
constexpr int32_t kTilePages = 2048;
constexpr int32_t kPageNumbers = 1024;

void print_share(const std::string& what, double ms, const std::string& limit, double limit_ms) {
  std::printf("| %s | %.3f | %s | %.3f | %.0f%% |\n", what.c_str(), ms, limit.c_str(), limit_ms,
              100.0 * limit_ms / ms);
}

// Pages [0, kTilePages) against the next as many.
std::vector<PairItem> tile_items() {
  std::vector<PairItem> items;
  for (int32_t row = 0; row < kTilePages; row += kPairRows)
    for (int32_t column = 0; column < kTilePages; column += kPairColumns)
      items.push_back({row, kPairRows, kTilePages + column, kPairColumns, 0, 0});
  return items;
}

__global__ void fill_floats_kernel(float* numbers, int64_t count, float from, float to) {
  const int64_t step = int64_t{gridDim.x} * blockDim.x;
  for (int64_t i = int64_t{blockIdx.x} * blockDim.x + threadIdx.x; i < count; i += step) {
    uint64_t z = (static_cast<uint64_t>(i) + 1) * 0x9e3779b97f4a7c15u;
    z = (z ^ (z >> 30)) * 0xbf58476d1ce4e5b9u;
    numbers[i] = from + (to - from) * static_cast<float>(z >> 40) * 0x1p-24f;
  }
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

// Cosine, centred cosine and L2 with their totals, histograms, bests and four partners a page, beside the
// bare product. Lists of partners are full from the first call on.
void products_case() {
  constexpr int64_t kPages = 2 * kTilePages, kPartners = 4;
  constexpr auto kSide = static_cast<std::size_t>(kTilePages);
  // Numbers of size below 1 have squared norms of a third of their count.
  const DeviceBuffer pages = random_floats(kPages * kPageNumbers, -1.0f, 1.0f),
                     squared = random_floats(kPages, 341.0f, 342.0f),
                     norm = random_floats(kPages, 18.4f, 18.5f),
                     inverse = random_floats(kPages, 0.0540f, 0.0541f),
                     mean_dot = random_floats(kPages, 0.0f, 0.1f), dots(kSide * kSide * sizeof(float)),
                     near(kSide * kSide * sizeof(uint32_t)), near_count = zeros(sizeof(uint32_t)),
                     sums = zeros(3 * sizeof(PairSums)), histogram = zeros(3 * kHistogramBins * 8),
                     best = zeros(3 * kPages * 4), partners = zeros(kPages * kPartners * 8);
  const std::vector<PairItem> items = tile_items();
  const DeviceBuffer item_list = DeviceBuffer::holding(std::span<const PairItem>(items));
  PairJob job;
  job.items = item_list.as<PairItem>();
  job.count = static_cast<int32_t>(items.size());
  job.tile = dots.as<float>();
  job.tile_column = kTilePages;
  job.tile_stride = kTilePages;
  job.thresholds[0] = 0.9f;
  job.threshold_count = 1;
  job.norms = {norm.as<float>(),    inverse.as<float>(),  squared.as<float>(),
               inverse.as<float>(), mean_dot.as<float>(), 0.1f};
  job.near = near.as<uint32_t>();
  job.near_count = near_count.as<uint32_t>();
  job.out = {
      .totals = sums.as<PairSums>(), .histogram = histogram.as<uint64_t>(), .groups = 1, .pages = kPages};
  job.out.row_best[0] = job.out.column_best[0] = best.as<int32_t>();
  job.partners = partners.as<uint64_t>();
  job.partner_count = kPartners;
  DeviceMatmul matmul;
  const DeviceProduct product{.x = {pages.as<float>(), DType::kF32, kTilePages, kPageNumbers, kPageNumbers},
                              .weights = {pages.as<float>() + int64_t{kTilePages} * kPageNumbers, DType::kF32,
                                          kTilePages, kPageNumbers},
                              .out = {dots.as<float>(), DType::kF32, kTilePages, kTilePages, kTilePages}};
  const double alone = median_ms([&] { matmul.run(product, nullptr); });
  const double fused = median_ms([&] {
    matmul.run(product, nullptr);
    compare_pairs_cuda(job, nullptr);
  });
  print_share("cosine, centred cosine and L2 of 2048 x 2048 pages of 1024 numbers, with top 4", fused,
              "cuBLAS product alone", alone);
}

// Floating-point operations a millisecond of a product of f16 numbers with f32 sums.
double product_rate() {
  constexpr int64_t kSide = 8192;
  const DeviceBuffer x = random_bytes(kSide * kSide * 2), weights = random_bytes(kSide * kSide * 2),
                     out(static_cast<std::size_t>(kSide * kSide) * sizeof(float));
  DeviceMatmul matmul;
  const DeviceProduct product{.x = {x.as<uint16_t>(), DType::kF16, kSide, kSide, kSide},
                              .weights = {weights.as<uint16_t>(), DType::kF16, kSide, kSide},
                              .out = {out.as<float>(), DType::kF32, kSide, kSide, kSide}};
  return 2.0 * kSide * kSide * kSide / median_ms([&] { matmul.run(product, nullptr); });
}

// A chunk of 512 tokens, 4 query heads a KV head, at the end of the context. Counted are the two products for
// what each query sees; splitting queries in two takes half as much again.
void prefill_case(const std::string& name, SideKind keys, SideKind values, int32_t head_dim, bool tiles,
                  double rate) {
  const AttentionTimes times =
      time_attention(keys, values, head_dim, 1, 512, {.group = 4, .tile_rows = tiles ? kLeastTileRows : 0});
  print_share("attention of a chunk, " + name + ", head_dim " + std::to_string(head_dim), times.ms,
              "cuBLAS f16 product of as many operations", times.flops / rate);
}

void prefill_cases() {
  const double rate = product_rate();
  for (const int32_t head_dim : {64, 128}) {
    prefill_case("f16", SideKind::kF16, SideKind::kF16, head_dim, true, rate);
    prefill_case("f16 without tensor cores", SideKind::kF16, SideKind::kF16, head_dim, false, rate);
    prefill_case("bf16", SideKind::kBF16, SideKind::kBF16, head_dim, true, rate);
    prefill_case("fp8 e4m3", SideKind::kE4M3, SideKind::kE4M3, head_dim, true, rate);
    prefill_case("8 bits by token", SideKind::kBits8, SideKind::kBits8, head_dim, true, rate);
    prefill_case("4 bits by token", SideKind::kBits4, SideKind::kBits4, head_dim, true, rate);
    prefill_case("4 bits, keys by channel", SideKind::kBits4ByChannel, SideKind::kBits4, head_dim, true,
                 rate);
    prefill_case("2 bits, keys by channel", SideKind::kBits2ByChannel, SideKind::kBits2, head_dim, true,
                 rate);
  }
}

constexpr int32_t kProbeRounds = 1024;

// Counts of words in registers alone.
__global__ void popcount_kernel(uint64_t* out) {
  uint64_t word = blockIdx.x * uint64_t{blockDim.x} + threadIdx.x;
  uint32_t sums[4] = {};
  for (int32_t i = 0; i < kProbeRounds / 4; ++i) {
    KVA_UNROLL
    for (int k = 0; k < 4; ++k)
      sums[k] += static_cast<uint32_t>(__popcll(word ^ static_cast<uint64_t>(i + k)));
    word += 0x9e3779b97f4a7c15u;
  }
  if (sums[0] + sums[1] + sums[2] + sums[3] == 0) *out = word;
}

void hamming_case() {
  constexpr int32_t kWords = kPageNumbers / 64;
  constexpr int64_t kPages = 2 * kTilePages;
  constexpr auto kSide = static_cast<std::size_t>(kTilePages);
  const DeviceBuffer words = random_bytes(kPages * kWords * 8), counts(kSide * kSide * sizeof(uint32_t)),
                     out = zeros(8);
  const BitCountJob job{.words = words.as<uint64_t>(),
                        .pages_stride = kPages,
                        .count = kWords,
                        .rows = kTilePages,
                        .column = kTilePages,
                        .columns = kTilePages,
                        .counts = counts.as<uint32_t>(),
                        .stride = kTilePages};
  const double counted = median_ms([&] { count_bits_cuda(job, nullptr); });
  constexpr unsigned int kBlocks = 4096, kThreads = 256;
  const double probed = median_ms([&] { popcount_kernel<<<kBlocks, kThreads>>>(out.as<uint64_t>()); });
  const double word_ms = probed / (double{kBlocks} * kThreads * kProbeRounds);
  print_share("Hamming of 2048 x 2048 pages of 1024 bits", counted, "popcounts of as many words",
              word_ms * kTilePages * kTilePages * kWords);
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
  coding_cases(copy);
  std::printf("\n| operation | ms | limit | ms | share of limit |\n| --- | --- | --- | --- | --- |\n");
  products_case();
  hamming_case();
  prefill_cases();
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
