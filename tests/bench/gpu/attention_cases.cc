#include <cstddef>
#include <span>
#include <string>
#include <vector>

#include "kernels/attention_work.h"
#include "kernels/paged_attention_cuda.h"
#include "tests/bench/gpu/cases.h"
#include "tests/bench/gpu/measuring.h"
#include "tests/bench/gpu/pages.h"

namespace kva {
namespace {

constexpr int32_t kContext = 32768;
constexpr int32_t kKvHeads = 8;

struct PageKinds {
  const char* name;
  SideKind keys, values;
  ScaleAxis key_axis = ScaleAxis::kToken;
  bool has_outliers = false;  // 1%, on both sides
};

// What the program's pages are of: keys of codes lie in rows of channels.
constexpr PageKinds kPageKinds[] = {
    {"f16", SideKind::kF16, SideKind::kF16},
    {"bf16", SideKind::kBF16, SideKind::kBF16},
    {"fp8 e4m3", SideKind::kE4M3, SideKind::kE4M3},
    {"8 bits, a scale a token", SideKind::kBits8ByChannel, SideKind::kBits8},
    {"4 bits, a scale a token", SideKind::kBits4ByChannel, SideKind::kBits4},
    {"4 bits, KIVI axes", SideKind::kBits4ByChannel, SideKind::kBits4, ScaleAxis::kChannel},
    {"4 bits, KIVI axes, 1% outliers", SideKind::kBits4ByChannel, SideKind::kBits4, ScaleAxis::kChannel,
     true},
    {"keys of 4 bits, values of 2, KIVI axes", SideKind::kBits4ByChannel, SideKind::kBits2,
     ScaleAxis::kChannel},
    {"2 bits, KIVI axes", SideKind::kBits2ByChannel, SideKind::kBits2, ScaleAxis::kChannel},
};

SideFormat key_format(const PageKinds& kinds, int32_t head_dim) {
  return page_format(kinds.keys, head_dim, kinds.key_axis, kinds.has_outliers ? outliers_of(head_dim) : 0);
}
SideFormat value_format(const PageKinds& kinds, int32_t head_dim) {
  return page_format(kinds.values, head_dim, ScaleAxis::kToken,
                     kinds.has_outliers ? outliers_of(head_dim) : 0);
}

struct AttentionTimes {
  double ms = 0.0;
  double bytes = 0.0;
  double flops = 0.0;
};

// The last `tokens` tokens of each of several sequences against 32,768 tokens.
AttentionTimes time_attention(const PageKinds& kinds, int32_t head_dim, int32_t sequences, int32_t tokens,
                              const AttentionLimits& limits) {
  const std::vector<SideFormat> formats = {key_format(kinds, head_dim), value_format(kinds, head_dim)};
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
  put_places(payloads.as<std::byte>(), key_bytes + value_bytes, std::ssize(pages), formats[0]);
  put_places(payloads.as<std::byte>() + key_bytes, key_bytes + value_bytes, std::ssize(pages), formats[1]);
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
void decode_case(const PageKinds& pages, int32_t head_dim, int32_t group, double copy) {
  const int64_t of_page = side_bytes(key_format(pages, head_dim), kPageTokens) +
                          side_bytes(value_format(pages, head_dim), kPageTokens);
  const int64_t of_sequence = int64_t{kKvHeads} * (kContext / kPageTokens) * of_page;
  const auto sequences = static_cast<int32_t>((kLeastBytes + of_sequence - 1) / of_sequence);
  const AttentionTimes times = time_attention(pages, head_dim, sequences, 1, {.group = group});
  print_row(std::string("attention, ") + pages.name + ", head_dim " + std::to_string(head_dim) + ", group " +
                std::to_string(group),
            times.bytes, times.ms, copy);
}

// A chunk of 512 tokens, 4 query heads a KV head, at the end of the context. Counted are the two products for
// what each query sees; splitting queries in two takes half as much again.
void prefill_case(const PageKinds& pages, int32_t head_dim, bool tiles, double rate) {
  const AttentionTimes times =
      time_attention(pages, head_dim, 1, 512, {.group = 4, .tile_rows = tiles ? kLeastTileRows : 0});
  print_share(std::string("attention of a chunk, ") + pages.name + ", head_dim " + std::to_string(head_dim),
              times.ms, "cuBLAS f16 product of as many operations", times.flops / rate);
}

}  // namespace

void decode_cases(double copy) {
  for (const int32_t head_dim : {64, 128})
    for (const int32_t group : {1, 4})
      for (const PageKinds& pages : kPageKinds) decode_case(pages, head_dim, group, copy);
}

void prefill_cases() {
  const double rate = product_rate();
  for (const int32_t head_dim : {64, 128}) {
    prefill_case({"f16 without tensor cores", SideKind::kF16, SideKind::kF16}, head_dim, false, rate);
    for (const PageKinds& pages : kPageKinds) prefill_case(pages, head_dim, true, rate);
  }
}

}  // namespace kva
