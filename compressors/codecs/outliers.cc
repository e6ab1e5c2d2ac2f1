#include "compressors/codecs/outliers.h"

#include <algorithm>
#include <bit>
#include <cmath>
#include <cstring>
#include <functional>

#include "kernels/check.h"
#include "kernels/convert.h"
#include "kernels/dtype.h"
#include "kernels/outlier_math.h"
#include "kernels/packed_math.h"

namespace kva {
namespace {

int64_t place_bytes(int64_t count, int64_t numbers) {
  return (count * outlier_place_bits(numbers) + 15) / 16 * 2;
}

// As it is written; a stranger's may lie behind the page. Behind the places there are at least as many bytes
// of values as it reads.
int64_t written_place(const std::byte* list, int bits, int64_t i) {
  return listed_place(reinterpret_cast<const uint8_t*>(list), bits, i);
}

}  // namespace

int outlier_place_bits(int64_t numbers) {
  return std::max(1,
                  static_cast<int>(std::bit_width(static_cast<uint64_t>(std::max<int64_t>(numbers, 1) - 1))));
}

int64_t outlier_count(double share, int64_t numbers) {
  return static_cast<int64_t>(std::ceil(share * static_cast<double>(numbers)));
}

int64_t outlier_bytes(int64_t count, int64_t numbers) { return place_bytes(count, numbers) + count * 2; }

std::vector<int64_t> farthest_numbers(MatView<const float> rows, ScaleAxis axis, int64_t group, int64_t count,
                                      const uint8_t* kept) {
  const int64_t numbers = rows.rows * rows.cols;
  KVA_CHECK(count >= 0 && count <= numbers && group >= 1, "as many outliers as numbers at most");
  std::vector<int64_t> places;
  if (count == 0) return places;
  std::vector<uint32_t> keys(static_cast<std::size_t>(numbers));
  // A group from (t, c) on, its numbers apart by so many tokens or channels.
  const auto measure = [&](int64_t t, int64_t c, int64_t of_group, int64_t tokens, int64_t channels) {
    const auto number = [&](int64_t i) { return rows.at(t + i * tokens, c + i * channels); };
    const auto place = [&](int64_t i) { return (t + i * tokens) * rows.cols + c + i * channels; };
    const auto is_kept = [&](int64_t i) { return kept && kept[place(i)] != 0; };
    const Spread spread = group_spread(static_cast<int32_t>(of_group), number, is_kept);
    for (int64_t i = 0; i < of_group; ++i)
      keys[static_cast<std::size_t>(place(i))] =
          is_kept(i) ? 0 : distance_key(distance_of(number(i), spread));
  };
  if (axis == ScaleAxis::kToken) {
    for (int64_t t = 0; t < rows.rows; ++t)
      for (int64_t c = 0; c < rows.cols; c += group) measure(t, c, std::min(group, rows.cols - c), 0, 1);
  } else {
    for (int64_t t = 0; t < rows.rows; t += group)
      for (int64_t c = 0; c < rows.cols; ++c) measure(t, c, std::min(group, rows.rows - t), 1, 0);
  }
  std::vector<uint32_t> falling(keys);
  const auto last = falling.begin() + (count - 1);
  std::nth_element(falling.begin(), last, falling.end(), std::greater<>());
  auto at_the_bound = count - std::count_if(falling.begin(), last, [&](uint32_t key) { return key > *last; });
  for (int64_t at = 0; at < numbers; ++at) {
    const uint32_t key = keys[static_cast<std::size_t>(at)];
    if (key > *last || (key == *last && at_the_bound-- > 0)) places.push_back(at);
  }
  return places;
}

void write_outliers(MatView<const float> rows, const std::vector<int64_t>& places, std::byte* list) {
  const int64_t numbers = rows.rows * rows.cols;
  const auto count = static_cast<int64_t>(places.size());
  std::byte* values = list + place_bytes(count, numbers);
  std::fill(list, values, std::byte{0});
  const int bits = outlier_place_bits(numbers);
  int64_t at = 0;
  for (const int64_t place : places) {
    for (int bit = 0; bit < bits; ++bit, ++at)
      list[at / 8] |= static_cast<std::byte>((place >> bit & 1) << (at % 8));
    const uint16_t value = f16_from_f32(rows.at(place / rows.cols, place % rows.cols));
    std::memcpy(values, &value, sizeof(value));
    values += sizeof(value);
  }
}

bool outliers_within(const std::byte* list, int64_t count, int64_t numbers) {
  const int bits = outlier_place_bits(numbers);
  for (int64_t i = 0; i < count; ++i)
    if (written_place(list, bits, i) >= numbers) return false;
  return true;
}

void restore_outliers(const std::byte* list, int64_t count, MatView<float> rows) {
  const int64_t numbers = rows.rows * rows.cols;
  const std::byte* values = list + place_bytes(count, numbers);
  constexpr int64_t kAtOnce = 64;
  for (int64_t first = 0; first < count; first += kAtOnce) {
    const int64_t some = std::min(kAtOnce, count - first);
    int32_t tokens[kAtOnce], channels[kAtOnce];
    // Places of 8 neighbours end with a byte.
    unpack_places(list + first / 8 * outlier_place_bits(numbers), outlier_place_bits(numbers), some,
                  numbers - 1, rows.cols, tokens, channels);
    for (int64_t i = 0; i < some; ++i) {
      uint16_t value;
      std::memcpy(&value, values + (first + i) * 2, sizeof(value));
      rows.at(tokens[i], channels[i]) = f32_from_f16(value);
    }
  }
}

SparseNumbers read_outliers(const std::byte* list, int64_t count, const PackedPage& page, const float* coded,
                            float* scratch) {
  auto* tokens = reinterpret_cast<int32_t*>(scratch);
  int32_t* channels = tokens + count;
  float* values = scratch + 2 * count;
  const int64_t numbers = page.tokens * page.width;
  unpack_places(list, outlier_place_bits(numbers), count, numbers - 1, page.width, tokens, channels);
  to_f32(list + place_bytes(count, numbers), DType::kF16, values, count);
  const int32_t* group = page.axis == ScaleAxis::kToken ? tokens : channels;
  if (coded && page.groups() <= 1)
    for (int64_t i = 0; i < count; ++i) values[i] -= coded[group[i]];
  else if (coded)
    for (int64_t i = 0; i < count; ++i) values[i] -= coded[page.scale_of(tokens[i], channels[i])];
  return {tokens, channels, values, count};
}

}  // namespace kva
