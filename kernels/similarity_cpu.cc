// Packing and totals; the SIMD loops are in similarity_simd_cpu.cc.
#include <algorithm>
#include <bit>
#include <cmath>
#include <limits>

#include "kernels/check.h"
#include "kernels/similarity.h"

namespace kva {

BitMatrix::BitMatrix(int64_t pages, int64_t bits)
    : pages_(pages),
      bits_(bits),
      words_(bit_words(bits)),
      // Slack of a vector: SIMD loops may read past the last page from any first page.
      stride_((pages + 8 + 7) / 8 * 8),
      data_(static_cast<std::size_t>(words_ * stride_)) {}

void BitMatrix::set_page(int64_t page, std::span<const uint64_t> words) {
  KVA_CHECK(page >= 0 && page < pages_ && static_cast<int64_t>(words.size()) == words_, "bits of a page");
  for (int64_t w = 0; w < words_; ++w)
    data_[static_cast<std::size_t>(w * stride_ + page)] = words[static_cast<std::size_t>(w)];
}

uint32_t differing_bits(const BitMatrix& x, int64_t i, const BitMatrix& y, int64_t j) {
  KVA_CHECK(x.bits() == y.bits(), "bit pages of one shape");
  int count = 0;
  for (int64_t w = 0; w < x.words(); ++w) count += std::popcount(x.word(i, w) ^ y.word(j, w));
  return static_cast<uint32_t>(count);
}

uint32_t common_bits(const BitMatrix& x, int64_t i, const BitMatrix& y, int64_t j) {
  KVA_CHECK(x.bits() == y.bits(), "bit pages of one shape");
  int count = 0;
  for (int64_t w = 0; w < x.words(); ++w) count += std::popcount(x.word(i, w) & y.word(j, w));
  return static_cast<uint32_t>(count);
}

void pack_signs(std::span<const float> values, std::span<uint64_t> words) {
  KVA_CHECK(static_cast<int64_t>(words.size()) == bit_words(static_cast<int64_t>(values.size())),
            "words for the signs");
  for (std::size_t w = 0; w < words.size(); ++w) {
    const std::size_t first = w * 64;
    const std::size_t last = std::min(first + 64, values.size());
    uint64_t word = 0;
    for (std::size_t k = first; k < last; ++k) word |= uint64_t{values[k] > 0.0f} << (k - first);
    words[w] = word;
  }
}

int64_t top_set_size(int64_t count, double share) {
  return std::clamp<int64_t>(std::llround(static_cast<double>(count) * share), 1, count);
}

namespace {

// The magnitude's bits order like the magnitude.
uint32_t magnitude_bits(float value) { return std::bit_cast<uint32_t>(value) & 0x7fffffffu; }

// The `size`-th largest key, by two counting passes: over the upper bits, then inside the bin that holds it.
// Returns the key and how many keys are larger.
struct Selected {
  uint32_t key;
  int64_t larger;
};
Selected select_largest(std::span<const float> values, int64_t size, std::vector<uint32_t>& inside) {
  constexpr int kShift = 20;
  int32_t counts[1 << (31 - kShift)] = {};
  for (const float value : values) ++counts[magnitude_bits(value) >> kShift];
  int64_t larger = 0;
  int bin = (1 << (31 - kShift)) - 1;
  while (larger + counts[bin] < size) larger += counts[bin--];
  inside.clear();
  for (const float value : values) {
    const uint32_t key = magnitude_bits(value);
    if (static_cast<int>(key >> kShift) == bin) inside.push_back(key);
  }
  const auto nth = inside.begin() + (size - larger - 1);
  std::nth_element(inside.begin(), nth, inside.end(), std::greater<>());
  const uint32_t key = *nth;
  for (const uint32_t other : inside) larger += other > key;
  return {key, larger};
}

}  // namespace

void pack_top_magnitudes(std::span<const float> values, int64_t size, std::span<uint64_t> words) {
  KVA_CHECK(size >= 1 && size <= static_cast<int64_t>(values.size()), "size of a top set");
  KVA_CHECK(static_cast<int64_t>(words.size()) == bit_words(static_cast<int64_t>(values.size())),
            "words for the set");
  thread_local std::vector<uint32_t> inside;
  const Selected selected = select_largest(values, size, inside);
  int64_t ties = size - selected.larger;
  for (std::size_t w = 0; w < words.size(); ++w) {
    const std::size_t first = w * 64;
    const std::size_t last = std::min(first + 64, values.size());
    uint64_t word = 0;
    for (std::size_t k = first; k < last; ++k) {
      const uint32_t key = magnitude_bits(values[k]);
      // Without a branch but for ties, which are few.
      word |= uint64_t{key > selected.key} << (k - first);
      if (key == selected.key && ties-- > 0) word |= uint64_t{1} << (k - first);
    }
    words[w] = word;
  }
}

void ValueTotals::merge(const ValueTotals& other) {
  count += other.count;
  sum += other.sum;
  squares_high += other.squares_high;
  squares_low += other.squares_low;
  for (int k = 0; k < kMaxThresholds; ++k) over[k] += other.over[k];
  min = std::min(min, other.min);
  max = std::max(max, other.max);
}

double ValueTotals::mean() const {
  return count == 0 ? 0.0 : static_cast<double>(sum) / double{kFixedOne} / static_cast<double>(count);
}

double ValueTotals::standard_deviation() const {
  if (count == 0) return 0.0;
  // In units of 2^-24. The long double holds the squares of 2^16 pairs exactly; beyond that its rounding is
  // far below the quantum.
  const long double n = static_cast<long double>(count);
  const long double squares =
      static_cast<long double>(squares_high) * kFixedOne + static_cast<long double>(squares_low);
  const long double average = static_cast<long double>(sum) / n;
  const long double variance = squares / n - average * average;
  return variance > 0.0L ? static_cast<double>(std::sqrt(variance) / kFixedOne) : 0.0;
}

}  // namespace kva
