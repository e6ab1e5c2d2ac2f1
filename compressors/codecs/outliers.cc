#include "compressors/codecs/outliers.h"

#include <algorithm>
#include <cmath>
#include <cstring>
#include <numeric>

#include "kernels/check.h"
#include "kernels/dtype.h"

namespace kva {
namespace {

constexpr int64_t kShortPlaces = 1 << 16;

// Of a group's numbers.
struct Moments {
  double sum = 0.0;
  double numbers = 0.0;
  double squares = 0.0;  // of their distances to the mean
  double mean() const { return sum / numbers; }
};

template <typename Place>
void write_places(const std::vector<int64_t>& places, std::byte* to) {
  for (const int64_t at : places) {
    const Place place = static_cast<Place>(at);
    std::memcpy(to, &place, sizeof(place));
    to += sizeof(place);
  }
}

template <typename Place>
void restore(const std::byte* list, int64_t count, MatView<float> rows) {
  const std::byte* values = list + count * static_cast<int64_t>(sizeof(Place));
  for (int64_t i = 0; i < count; ++i) {
    Place place;
    uint16_t value;
    std::memcpy(&place, list + i * static_cast<int64_t>(sizeof(place)), sizeof(place));
    std::memcpy(&value, values + i * 2, sizeof(value));
    rows.at(place / rows.cols, place % rows.cols) = f32_from_f16(value);
  }
}

}  // namespace

int64_t outlier_count(double share, int64_t numbers) {
  return static_cast<int64_t>(std::ceil(share * static_cast<double>(numbers)));
}

int64_t outlier_bytes(int64_t count, int64_t numbers) {
  return count * (numbers > kShortPlaces ? 4 + 2 : 2 + 2);
}

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
  const bool short_places = rows.rows * rows.cols <= kShortPlaces;
  (short_places ? write_places<uint16_t> : write_places<uint32_t>)(places, list);
  std::byte* values = list + static_cast<int64_t>(places.size()) * (short_places ? 2 : 4);
  for (const int64_t at : places) {
    const uint16_t value = f16_from_f32(rows.at(at / rows.cols, at % rows.cols));
    std::memcpy(values, &value, sizeof(value));
    values += sizeof(value);
  }
}

void restore_outliers(const std::byte* list, int64_t count, MatView<float> rows) {
  (rows.rows * rows.cols <= kShortPlaces ? restore<uint16_t> : restore<uint32_t>)(list, count, rows);
}

}  // namespace kva
