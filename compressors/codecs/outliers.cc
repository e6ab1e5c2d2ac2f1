#include "compressors/codecs/outliers.h"

#include <algorithm>
#include <bit>
#include <cmath>
#include <cstring>
#include <numeric>

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
  double mean() const { return sum / numbers; }
};

int64_t place_bytes(int64_t count, int64_t numbers) {
  return (count * outlier_place_bits(numbers) + 15) / 16 * 2;
}

// Reads the places of a list; damaged ones stay within the page side.
class PlaceReader {
 public:
  PlaceReader(const std::byte* list, int64_t count, int64_t tokens, int64_t width)
      : list_(list),
        values_(list + place_bytes(count, tokens * width)),
        bits_(outlier_place_bits(tokens * width)),
        last_(tokens * width - 1),
        by_width_((uint64_t{1} << kShift) / static_cast<uint64_t>(std::max<int64_t>(width, 1)) + 1) {
    KVA_CHECK(bits_ <= kMostBits, "a page side of so many numbers");
  }

  const std::byte* values() const { return values_; }
  // As it is written; a stranger's may lie behind the page.
  int64_t written(int64_t i) const {
    // Behind the places there are at least as many bytes of values or codes as it reads.
    return listed_place(reinterpret_cast<const uint8_t*>(list_), bits_, i);
  }
  int64_t operator()(int64_t i) const { return std::min(written(i), last_); }
  // place / width, without dividing: exact as place * width < 2^kShift.
  int64_t token(int64_t place) const {
    return static_cast<int64_t>((static_cast<uint64_t>(place) * by_width_) >> kShift);
  }

 private:
  static constexpr int kShift = 40;
  static constexpr int kMostBits = 24;

  const std::byte* list_;
  const std::byte* values_;
  int bits_;
  int64_t last_;
  uint64_t by_width_;
};

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
  const int64_t groups_of_row = (rows.cols + group - 1) / group;
  const auto group_of = [&](int64_t token, int64_t channel) {
    return static_cast<std::size_t>(axis == ScaleAxis::kToken ? token * groups_of_row + channel / group
                                                              : token / group * rows.cols + channel);
  };
  std::vector<Moments> groups(group_of(rows.rows - 1, rows.cols - 1) + 1);
  const auto each = [&](const auto& body) {
    for (int64_t t = 0, at = 0; t < rows.rows; ++t)
      for (int64_t c = 0; c < rows.cols; ++c, ++at)
        if (!kept || !kept[at]) body(at, double{rows.at(t, c)}, groups[group_of(t, c)]);
  };
  each([](int64_t, double x, Moments& of) {
    of.sum += x;
    of.numbers += 1.0;
  });
  each([](int64_t, double x, Moments& of) { of.squares += (x - of.mean()) * (x - of.mean()); });
  std::vector<double> distance(static_cast<std::size_t>(numbers), -1.0);
  each([&](int64_t at, double x, const Moments& of) {
    const double deviation = std::sqrt(of.squares / of.numbers);
    distance[static_cast<std::size_t>(at)] =
        deviation > 0.0 ? std::abs(x - of.mean()) / std::sqrt(deviation) : 0.0;
  });
  places.resize(static_cast<std::size_t>(numbers));
  std::iota(places.begin(), places.end(), int64_t{0});
  const auto farther = [&](int64_t a, int64_t b) {
    const double of_a = distance[static_cast<std::size_t>(a)], of_b = distance[static_cast<std::size_t>(b)];
    return of_a != of_b ? of_a > of_b : a < b;
  };
  const auto end = places.begin() + count;
  if (end != places.end()) std::nth_element(places.begin(), end, places.end(), farther);
  places.erase(end, places.end());
  std::sort(places.begin(), places.end());
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
  const PlaceReader place(list, count, 1, numbers);
  for (int64_t i = 0; i < count; ++i)
    if (place.written(i) >= numbers) return false;
  return true;
}

void restore_outliers(const std::byte* list, int64_t count, MatView<float> rows) {
  const PlaceReader place(list, count, rows.rows, rows.cols);
  for (int64_t i = 0; i < count; ++i) {
    uint16_t value;
    std::memcpy(&value, place.values() + i * 2, sizeof(value));
    const int64_t token = place.token(place(i));
    rows.at(token, place(i) - token * rows.cols) = f32_from_f16(value);
  }
}

SparseNumbers read_outliers(const std::byte* list, int64_t count, const PackedPage& page, const float* coded,
                            float* scratch) {
  auto* tokens = reinterpret_cast<int32_t*>(scratch);
  int32_t* channels = tokens + count;
  float* values = scratch + 2 * count;
  const PlaceReader place(list, count, page.tokens, page.width);
  to_f32(place.values(), DType::kF16, values, count);
  for (int64_t i = 0; i < count; ++i) {
    const int64_t at = place(i);
    const int64_t token = place.token(at);
    tokens[i] = static_cast<int32_t>(token);
    channels[i] = static_cast<int32_t>(at - token * page.width);
  }
  const int32_t* group = page.axis == ScaleAxis::kToken ? tokens : channels;
  if (coded && page.groups() <= 1)
    for (int64_t i = 0; i < count; ++i) values[i] -= coded[group[i]];
  else if (coded)
    for (int64_t i = 0; i < count; ++i) values[i] -= coded[page.scale_of(tokens[i], channels[i])];
  return {tokens, channels, values, count};
}

}  // namespace kva
