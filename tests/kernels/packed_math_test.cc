// The layout as device kernels read it, against the CPU's packing.
#include "kernels/packed_math.h"

#include <gtest/gtest.h>

#include <random>
#include <vector>

#include "kernels/packed.h"

namespace kva {
namespace {

struct PackedRow {
  std::vector<uint8_t> codes;
  std::vector<std::byte> bytes;
  const uint8_t* data() const { return reinterpret_cast<const uint8_t*>(bytes.data()); }
};

PackedRow random_row(int bits, int32_t length) {
  std::mt19937 random(static_cast<unsigned>(length * 10 + bits));
  PackedRow row{std::vector<uint8_t>(static_cast<std::size_t>(length)),
                std::vector<std::byte>(static_cast<std::size_t>(packed_row_bytes(bits, length)))};
  for (uint8_t& code : row.codes) code = static_cast<uint8_t>(random() & ((1u << bits) - 1));
  pack_row(row.codes.data(), bits, length, row.bytes.data());
  return row;
}

TEST(PackedMath, EveryNumberOfARowOfAnyLength) {
  for (const int bits : {2, 3, 4, 8})
    for (int32_t length = 1; length <= 260; ++length) {
      const PackedRow row = random_row(bits, length);
      ASSERT_EQ(packed_bytes(bits, length), packed_row_bytes(bits, length));
      for (int32_t i = 0; i < length; ++i)
        ASSERT_EQ(packed_code(row.data(), bits, length, i), row.codes[static_cast<std::size_t>(i)])
            << bits << " bits, " << i << " of " << length;
    }
}

// The units of a row have each of its numbers once, and read no byte outside of it.
template <int bits>
void expect_units() {
  for (int32_t length = 8; length <= 264; length += 8) {
    const PackedRow row = random_row(bits, length);
    std::vector<int> seen(row.codes.size());
    for (int32_t unit = 0; unit < length / kUnit; ++unit) {
      int32_t at, plane;
      const UnitPlaces places = packed_unit<bits>(length, unit, &at, &plane);
      const int32_t last = bits == 3 ? at + 2 * plane : at + bits - 1;
      ASSERT_LT(last, packed_bytes(bits, length));
      for (const bool whole : {false, true}) {
        const UnitBits loaded = load_unit<bits>(row.data() + at, plane, whole);
        for (int j = 0; j < kUnit; ++j)
          ASSERT_EQ(unit_code<bits>(loaded, j), row.codes[static_cast<std::size_t>(places.place(j))])
              << bits << " bits, unit " << unit << " of " << length;
      }
      for (int j = 0; j < kUnit; ++j) ++seen[static_cast<std::size_t>(places.place(j))];
    }
    EXPECT_EQ(seen, std::vector<int>(row.codes.size(), 1)) << bits << " bits, " << length;
  }
}

TEST(PackedMath, UnitsOfARow) {
  expect_units<8>();
  expect_units<4>();
  expect_units<3>();
  expect_units<2>();
}

TEST(PackedMath, ScalesAreWherePackedPagesHaveThem) {
  for (const ScaleAxis axis : {ScaleAxis::kToken, ScaleAxis::kChannel})
    for (const int64_t group : {1, 5, 16, 64, 1000}) {
      const PackedPage page{.tokens = 17, .width = 40, .axis = axis, .group = group};
      SideFormat format;
      format.scale_by_token = axis == ScaleAxis::kToken;
      format.width = 40;
      format.tokens = 17;
      format.group = static_cast<int32_t>(group);
      format.groups = static_cast<int32_t>(page.groups());
      for (int32_t t = 0; t < 17; ++t)
        for (int32_t c = 0; c < 40; ++c) ASSERT_EQ(scale_index(format, t, c), page.scale_of(t, c));
    }
}

}  // namespace
}  // namespace kva
