#include "compressors/codecs/outliers.h"

#include <algorithm>
#include <bit>
#include <cmath>
#include <cstring>
#include <functional>

#include "kernels/check.h"
#include "kernels/convert.h"
#include "kernels/dtype.h"
#include "kernels/packed_math.h"

namespace kva {
namespace {

// Of a group's numbers.
struct Moments {
  double sum = 0.0;
  double numbers = 0.0;
  double squares = 0.0;  // of their distances to the mean
  double mean = 0.0;
  double root_deviation = 0.0;  // the root of the standard deviation
};

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
  const int64_t groups_of_row = axis == ScaleAxis::kToken ? (rows.cols + group - 1) / group : rows.cols;
  // body(first place, numbers, how many, of their groups the first, how far apart): so many neighbours in a
  // row that are all of one group (apart by 0), or each of the next (apart by 1).
  const auto each_run = [&](const auto& body) {
    for (int64_t t = 0; t < rows.rows; ++t) {
      if (axis == ScaleAxis::kChannel) {
        body(t * rows.cols, rows.row(t), rows.cols, t / group * groups_of_row, 1);
        continue;
      }
      for (int64_t g = 0; g < groups_of_row; ++g) {
        const int64_t first = g * group;
        body(t * rows.cols + first, rows.row(t) + first, std::min(group, rows.cols - first),
             t * groups_of_row + g, 0);
      }
    }
  };
  const int64_t group_rows = axis == ScaleAxis::kToken ? rows.rows : (rows.rows + group - 1) / group;
  std::vector<Moments> groups(static_cast<std::size_t>(group_rows * groups_of_row));
  const auto each = [&](const auto& body) {
    each_run([&](int64_t place, const float* of_row, int64_t run, int64_t first_group, int64_t apart) {
      Moments* of = groups.data() + first_group;
      for (int64_t i = 0; i < run; ++i, of += apart)
        if (!kept || !kept[place + i]) body(place + i, double{of_row[i]}, *of);
    });
  };
  each([](int64_t, double x, Moments& of) {
    of.sum += x;
    of.numbers += 1.0;
  });
  for (Moments& of : groups) of.mean = of.sum / of.numbers;
  each([](int64_t, double x, Moments& of) { of.squares += (x - of.mean) * (x - of.mean); });
  for (Moments& of : groups) of.root_deviation = std::sqrt(std::sqrt(of.squares / of.numbers));
  std::vector<double> distance(static_cast<std::size_t>(numbers), -1.0);
  each([&](int64_t at, double x, const Moments& of) {
    distance[static_cast<std::size_t>(at)] =
        of.root_deviation > 0.0 ? std::abs(x - of.mean) / of.root_deviation : 0.0;
  });
  std::vector<double> falling(distance);
  const auto last = falling.begin() + (count - 1);
  std::nth_element(falling.begin(), last, falling.end(), std::greater<>());
  auto at_the_bound = count - std::count_if(falling.begin(), last, [&](double d) { return d > *last; });
  for (int64_t at = 0; at < numbers; ++at) {
    const double d = distance[static_cast<std::size_t>(at)];
    if (d > *last || (d == *last && at_the_bound-- > 0)) places.push_back(at);
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
