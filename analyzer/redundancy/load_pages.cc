// From stored pages to f32 in the basis asked for.
#include <fmt/format.h>

#include <algorithm>
#include <bit>
#include <cmath>
#include <cstring>

#include "analyzer/redundancy/page_matrix.h"
#include "kernels/check.h"
#include "kernels/convert.h"
#include "runtime/error.h"
#include "runtime/kv/rebase.h"

namespace kva {
namespace {

constexpr uint32_t kInfinityBits = 0x7f800000u;

// The largest magnitude as bits; over or equal kInfinityBits where a value is not finite.
uint32_t largest_bits(const float* values, int64_t count) {
  uint32_t largest = 0;
  for (int64_t k = 0; k < count; ++k)
    largest = std::max(largest, std::bit_cast<uint32_t>(values[k]) & 0x7fffffffu);
  return largest;
}

[[noreturn]] void fail_not_finite(const PageSet& pages, int layer, SideBasis side, int64_t page) {
  const PageOrigin& origin = pages.pages[static_cast<std::size_t>(page)];
  const CapturedPrompt& prompt = pages.prompts[static_cast<std::size_t>(origin.prompt)];
  throw InputError(
      fmt::format("pages: layer {} {} page {} (prompt \"{}\" of set \"{}\", token {}): expected finite "
                  "values, found NaN or infinity; check the model's weights or capture again",
                  layer, side_name(side), page, prompt.name, prompt.set, origin.start));
}

void turn_page(const PageSet& pages, SideBasis side, int64_t page, const PageShape& shape, float* values) {
  if (side == SideBasis::kValue || !pages.rope) return;
  const int64_t start = pages.pages[static_cast<std::size_t>(page)].start;
  const KeyBasis wanted = side == SideBasis::kKeyRotated ? KeyBasis::kRotated : KeyBasis::kPlain;
  rebase_keys(*pages.rope, pages.key_basis, wanted, start, shape.tokens, shape.heads, values);
}

}  // namespace

PageShape shape_of(const PageSet& pages) {
  return {pages.page_count(), pages.kv_heads, pages.page_tokens, pages.head_dim};
}

void read_page(const PageSet& pages, int layer, SideBasis side, int64_t page, double unit, float* values) {
  const PageShape shape = shape_of(pages);
  const std::byte* stored = pages.side_values(layer, side == SideBasis::kValue ? Side::kValue : Side::kKey);
  to_f32(stored + page * shape.page_values() * dtype_bytes(pages.dtype), pages.dtype, values,
         shape.page_values());
  const float scale = static_cast<float>(1.0 / unit);
  for (int64_t k = 0; k < shape.page_values(); ++k) values[k] *= scale;
  turn_page(pages, side, page, shape, values);
}

RawPages load_pages(const PageSet& pages, int layer, SideBasis side, ThreadPool& pool) {
  RawPages raw;
  raw.shape = shape_of(pages);
  const int64_t page_values = raw.shape.page_values();
  raw.values.resize(static_cast<std::size_t>(raw.shape.pages * page_values));
  std::vector<uint32_t> largest(static_cast<std::size_t>(raw.shape.pages));
  pool.parallel_for(raw.shape.pages, [&](int64_t page, int) {
    float* values = raw.values.data() + page * page_values;
    read_page(pages, layer, side, page, 1.0, values);
    largest[static_cast<std::size_t>(page)] = largest_bits(values, page_values);
  });
  for (std::size_t p = 0; p < largest.size(); ++p)
    if (largest[p] >= kInfinityBits) fail_not_finite(pages, layer, side, static_cast<int64_t>(p));
  const float magnitude = std::bit_cast<float>(*std::max_element(largest.begin(), largest.end()));
  int exponent = 0;
  if (magnitude > 0.0f) std::frexp(magnitude, &exponent);
  exponent = std::max(exponent, -126);  // keeps 2^-exponent within f32
  raw.unit = std::ldexp(1.0, exponent);
  const float scale = std::ldexp(1.0f, -exponent);
  pool.parallel_for(raw.shape.pages, [&](int64_t page, int) {
    float* values = raw.values.data() + page * page_values;
    for (int64_t k = 0; k < page_values; ++k) values[k] *= scale;
  });
  return raw;
}

RawPages reorder_tokens(const RawPages& pages, std::span<const int64_t> order, ThreadPool& pool) {
  const PageShape& shape = pages.shape;
  KVA_CHECK(static_cast<int64_t>(order.size()) == shape.pages * shape.tokens, "an order of all tokens");
  RawPages result{shape, std::vector<float>(pages.values.size()), pages.unit};
  pool.parallel_for(shape.pages, [&](int64_t page, int) {
    for (int64_t h = 0; h < shape.heads; ++h)
      for (int64_t t = 0; t < shape.tokens; ++t) {
        const int64_t source = order[static_cast<std::size_t>(page * shape.tokens + t)];
        const int64_t from = (source / shape.tokens * shape.heads + h) * shape.tokens + source % shape.tokens;
        const int64_t to = (page * shape.heads + h) * shape.tokens + t;
        std::memcpy(result.values.data() + to * shape.head_dim, pages.values.data() + from * shape.head_dim,
                    static_cast<std::size_t>(shape.head_dim) * sizeof(float));
      }
  });
  return result;
}

namespace {

// Sums of term(value) over the tokens of each channel. Blocks of a fixed size, added in their order.
template <typename Term>
std::vector<double> channel_sums(const RawPages& pages, ThreadPool& pool, const Term& term) {
  constexpr int64_t kBlockPages = 64;
  const PageShape& shape = pages.shape;
  const std::size_t channels = static_cast<std::size_t>(shape.channels());
  const int64_t blocks = (shape.pages + kBlockPages - 1) / kBlockPages;
  std::vector<std::vector<double>> partial(static_cast<std::size_t>(blocks), std::vector<double>(channels));
  pool.parallel_for(blocks, [&](int64_t block, int) {
    std::vector<double>& sums = partial[static_cast<std::size_t>(block)];
    const int64_t last = std::min(shape.pages, (block + 1) * kBlockPages);
    const float* values = pages.values.data() + block * kBlockPages * shape.page_values();
    for (int64_t page = block * kBlockPages; page < last; ++page)
      for (int64_t h = 0; h < shape.heads; ++h)
        for (int64_t t = 0; t < shape.tokens; ++t, values += shape.head_dim) {
          double* head_sums = sums.data() + h * shape.head_dim;
          for (int64_t c = 0; c < shape.head_dim; ++c) head_sums[c] += term(double{values[c]});
        }
  });
  std::vector<double> sums(channels);
  for (const std::vector<double>& block : partial)
    for (std::size_t c = 0; c < channels; ++c) sums[c] += block[c];
  return sums;
}

}  // namespace

std::vector<float> channel_means(const RawPages& pages, ThreadPool& pool) {
  const double tokens = static_cast<double>(pages.shape.pages * pages.shape.tokens);
  std::vector<float> means;
  for (const double sum : channel_sums(pages, pool, [](double v) { return v; }))
    means.push_back(static_cast<float>(sum / tokens));
  return means;
}

std::vector<double> channel_rms(const RawPages& pages, ThreadPool& pool) {
  const double tokens = static_cast<double>(pages.shape.pages * pages.shape.tokens);
  std::vector<double> rms = channel_sums(pages, pool, [](double v) { return v * v; });
  for (double& value : rms) value = std::sqrt(value / tokens) * pages.unit;
  return rms;
}

}  // namespace kva
