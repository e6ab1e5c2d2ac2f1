// Bare sides are coded with the bytes of the code for sides of every kind (which tests hold to the codec's).
#include "kernels/pack_bare.h"

#include <gtest/gtest.h>

#include <bit>
#include <cstring>
#include <random>
#include <string>
#include <utility>
#include <vector>

#include "kernels/pack_lanes.h"
#include "kernels/packed.h"
#include "tests/kernels/host_block.h"

namespace kva {
namespace {

SideFormat bare_format(SideKind kind, int32_t tokens, int32_t width, bool symmetric,
                       ScaleAxis axis = ScaleAxis::kToken) {
  SideFormat f;
  f.kind = kind;
  f.tokens = tokens;
  f.width = width;
  f.scale_by_token = axis == ScaleAxis::kToken;
  f.group = f.scale_by_token ? width : tokens;
  const int32_t groups = bare_groups(f);
  f.scales_at = 0;
  f.zeros_at = symmetric ? -1 : groups * 2;
  f.codes_at = (symmetric ? 2 : 4) * groups;
  f.bytes = f.codes_at + bare_rows(f) * packed_bytes(side_bits(kind), bare_length(f));
  return f;
}

// Whether symmetric, and what shares a scale.
constexpr std::pair<bool, ScaleAxis> kScales[] = {{false, ScaleAxis::kToken},
                                                  {true, ScaleAxis::kToken},
                                                  {false, ScaleAxis::kChannel},
                                                  {true, ScaleAxis::kChannel}};

// As many numbers are kept behind the codes.
SideFormat with_outliers(SideFormat f, int32_t outliers) {
  f.outliers = outliers;
  f.place_bits = static_cast<int32_t>(std::bit_width(static_cast<uint32_t>(f.tokens * f.width - 1)));
  f.places_at = (f.bytes + 1) / 2 * 2;
  f.outlier_values_at = f.places_at + (outliers * f.place_bits + 15) / 16 * 2;
  f.bytes = f.outlier_values_at + outliers * 2;
  return f;
}

// Of which some lie half a step between codes: rows go from -1 to 1 in steps of an odd part of a code's.
std::vector<float> numbers(int32_t count, int bits, std::mt19937& random) {
  std::vector<float> rows(static_cast<std::size_t>(count));
  const auto halves = static_cast<float>(2 * ((1 << bits) - 1));
  for (float& x : rows) {
    x = 2.0f * static_cast<float>(random() % static_cast<uint32_t>(halves + 1.0f)) / halves - 1.0f;
    if (random() % 4 == 0) x = static_cast<float>(random() >> 8) / 8388608.0f - 1.0f;
  }
  return rows;
}

std::vector<std::byte> stored(const std::vector<float>& rows, SideKind kind) {
  std::vector<std::byte> bytes(rows.size() * static_cast<std::size_t>(side_bits(kind)) / 8);
  const DType type = kind == SideKind::kF32   ? DType::kF32
                     : kind == SideKind::kF16 ? DType::kF16
                                              : DType::kBF16;
  for (std::size_t i = 0; i < rows.size(); ++i)
    store_value(rows[i], type, bytes.data(), static_cast<int64_t>(i));
  return bytes;
}

void expect_same_bytes(PackJob job, const PackSide& from, const std::string& what) {
  ASSERT_TRUE(packs_bare(job)) << what;
  HostWarp warp;
  HostBlock team(warp), shuffled(warp);
  shuffled.shuffle(5);
  std::vector<double> scratch(static_cast<std::size_t>(pack_scratch(job).bytes / 8));
  job.scratch = reinterpret_cast<std::byte*>(scratch.data());
  const auto code = [&](const auto& run) {
    std::vector<std::byte> payload(static_cast<std::size_t>(job.format.bytes), std::byte{0xa5});
    PackSide side = from;
    side.payload = payload.data();
    int32_t refused = 0;
    job.sides = &side;
    job.count = 1;
    job.refused = &refused;
    run();
    EXPECT_EQ(refused, 0) << what;
    return payload;
  };
  const auto bare = code([&] { pack_side(shuffled, job, 0); });
  const auto plain = code([&] { pack_side_by<PackPath::kBits, false>(team, job, 0); });
  EXPECT_EQ(bare, plain) << what;
}

TEST(BarePacking, GivesTheBytesOfAnyOtherCode) {
  std::mt19937 random(3);
  for (int kind = static_cast<int>(SideKind::kBits8); kind <= static_cast<int>(SideKind::kBits2ByChannel);
       ++kind)
    for (const SideKind source : {SideKind::kF16, SideKind::kBF16, SideKind::kF32})
      for (const int32_t tokens : {8, 16, 40, 64})
        for (const int32_t width : {8, 64, 80, 128})
          for (const auto& [symmetric, axis] : kScales) {
            const auto of = static_cast<SideKind>(kind);
            if (axis == ScaleAxis::kChannel && !is_by_channel(of)) continue;
            const SideFormat f = bare_format(of, tokens, width, symmetric, axis);
            const auto rows = stored(numbers(tokens * width, side_bits(of), random), source);
            const std::string what = "kind " + std::to_string(kind) + ", source " +
                                     std::to_string(static_cast<int>(source)) + ", " +
                                     std::to_string(tokens) + " tokens of " + std::to_string(width);
            const PackJob job{.format = f, .source_kind = source};
            if (!packs_bare(job)) continue;  // rows of codes that units do not fill
            expect_same_bytes(job, {.source = rows.data()}, what);
            std::vector<const std::byte*> each;
            const std::size_t row_bytes = rows.size() / static_cast<std::size_t>(tokens);
            for (std::size_t t = 0; t < static_cast<std::size_t>(tokens); ++t)
              each.push_back(rows.data() + (static_cast<std::size_t>(tokens) - 1 - t) * row_bytes);
            expect_same_bytes(job, {.rows = each.data()}, what + ", gathered");
          }
}

// None of them, one, some, more than are looked for among runs, and all.
TEST(BarePacking, TakesOutliersOut) {
  std::mt19937 random(4);
  for (int kind = static_cast<int>(SideKind::kBits8); kind <= static_cast<int>(SideKind::kBits2ByChannel);
       ++kind)
    for (const SideKind source : {SideKind::kF16, SideKind::kBF16, SideKind::kF32})
      for (const int32_t tokens : {8, 16, 64})
        for (const int32_t width : {8, 80, 128})
          for (const auto& [symmetric, axis] : kScales) {
            const int32_t count = tokens * width;
            const auto of = static_cast<SideKind>(kind);
            if (axis == ScaleAxis::kChannel && !is_by_channel(of)) continue;
            for (const int32_t outliers : {1, count / 100 + 2, count / 5, count}) {
              const SideFormat f = with_outliers(bare_format(of, tokens, width, symmetric, axis), outliers);
              const auto rows = stored(numbers(count, side_bits(of), random), source);
              expect_same_bytes({.format = f, .source_kind = source}, {.source = rows.data()},
                                "kind " + std::to_string(kind) + ", source " +
                                    std::to_string(static_cast<int>(source)) + ", " + std::to_string(tokens) +
                                    " tokens of " + std::to_string(width) + ", " + std::to_string(outliers) +
                                    " outliers");
            }
          }
}

TEST(BarePacking, TakesCommonPages) {
  for (const SideKind kind :
       {SideKind::kBits8, SideKind::kBits4, SideKind::kBits3, SideKind::kBits2, SideKind::kBits8ByChannel,
        SideKind::kBits4ByChannel, SideKind::kBits3ByChannel, SideKind::kBits2ByChannel})
    for (const int32_t tokens : {16, 64, 128})
      for (const int32_t width : {64, 80, 128, 256}) {
        const ScaleAxis axis = is_by_channel(kind) && width == 80 ? ScaleAxis::kChannel : ScaleAxis::kToken;
        const SideFormat f = bare_format(kind, tokens, width, false, axis);
        EXPECT_TRUE(packs_bare({.format = f, .source_kind = SideKind::kF16}))
            << tokens << " tokens of " << width;
        EXPECT_EQ(
            packs_bare({.format = with_outliers(f, tokens * width / 100), .source_kind = SideKind::kF16}),
            tokens * width < 128 * 256)
            << tokens << " tokens of " << width;
      }
  SideFormat kept = bare_format(SideKind::kBits4, 64, 128, false);
  kept.dense_channels = 1;
  EXPECT_FALSE(packs_bare({.format = kept}));
}

TEST(BarePacking, RefusesWhatF16DoesNotHold) {
  const SideFormat f = bare_format(SideKind::kBits4, 16, 64, false);
  for (const float beyond : {65520.0f, -65520.0f, INFINITY, NAN})
    for (const std::size_t place : {std::size_t{0}, std::size_t{1023}}) {
      std::vector<float> rows(1024, 0.5f);
      rows[place] = beyond;
      std::vector<std::byte> payload(static_cast<std::size_t>(f.bytes));
      const PackSide side{.source = reinterpret_cast<const std::byte*>(rows.data()),
                          .payload = payload.data()};
      int32_t refused = 0;
      HostWarp warp;
      HostBlock team(warp);
      pack_side(team,
                {.format = f, .source_kind = SideKind::kF32, .sides = &side, .count = 1, .refused = &refused},
                0);
      EXPECT_EQ(refused, 1) << beyond;
    }
}

}  // namespace
}  // namespace kva
