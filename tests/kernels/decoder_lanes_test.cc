// The decoder's steps as the device takes them, run on the host, against the CPU's kernels.
#include "kernels/decoder_lanes.h"

#include <gtest/gtest.h>

#include <cmath>
#include <limits>
#include <random>
#include <vector>

#include "kernels/convert.h"
#include "kernels/encode_lanes.h"
#include "kernels/hadamard.h"
#include "kernels/norm.h"
#include "kernels/rope.h"
#include "tests/kernels/host_warp.h"

namespace kva {
namespace {

constexpr DType kTypes[] = {DType::kF32, DType::kF16, DType::kBF16};

std::vector<float> draw(int64_t count, unsigned seed, float size = 1.0f) {
  std::mt19937 random(seed);
  std::vector<float> values(static_cast<std::size_t>(count));
  for (float& x : values) x = size * (static_cast<float>(random() >> 8) / 8388608.0f - 1.0f);
  return values;
}

// Rows stored in a type, poisoned behind each row's last number.
struct StoredRows {
  StoredRows(const std::vector<float>& values, int64_t cols, DType type)
      : bytes(static_cast<std::size_t>(static_cast<int64_t>(values.size()) / cols * (cols + 3)) * 4),
        rows{bytes.data(), type, static_cast<int64_t>(values.size()) / cols, cols, cols + 3} {
    for (int64_t r = 0; r < rows.rows; ++r)
      for (int64_t c = 0; c < rows.stride; ++c)
        rows.put(r, c, c < cols ? values[static_cast<std::size_t>(r * cols + c)] : kGuard);
  }
  std::vector<float> read() const {
    std::vector<float> values;
    for (int64_t r = 0; r < rows.rows; ++r) {
      for (int64_t c = 0; c < rows.cols; ++c) values.push_back(rows.at(r, c));
      for (int64_t c = rows.cols; c < rows.stride; ++c) EXPECT_EQ(rows.at(r, c), kGuard);
    }
    return values;
  }

  static constexpr float kGuard = 1024.0f;
  std::vector<std::byte> bytes;
  DeviceRows rows;
};

// What storing a number in a type may round away of it.
double rounding(DType type) { return type == DType::kF32 ? 0x1p-24 : type == DType::kF16 ? 0x1p-11 : 0x1p-8; }

TEST(DecoderLanes, NormsMatchTheCpu) {
  for (const DType type : kTypes)
    for (const int64_t cols : {1, 31, 32, 33, 576})
      for (const bool centred : {false, true}) {
        StoredRows x(draw(3 * cols, 1), cols, type);
        StoredRows out(draw(3 * cols, 2), cols, type);
        const std::vector<float> weight = draw(cols, 3), bias = draw(cols, 4), values = x.read();
        std::vector<float> expected(values.size());
        const MatView<const float> from(values.data(), 3, cols);
        const MatView<float> to(expected.data(), 3, cols);
        if (centred)
          layer_norm(from, weight.data(), bias.data(), 1e-5f, to);
        else
          rms_norm(from, weight.data(), 1e-5f, to);
        const NormJob job{x.rows, out.rows, weight.data(), centred ? bias.data() : nullptr, 1e-5f, centred};
        HostWarp warp;
        for (int64_t r = 0; r < 3; ++r) warp.run([&](HostWarp::Lane& lane) { norm_row(lane, job, r); });
        const std::vector<float> found = out.read();
        // Sums of cols terms, each side; a single number less its mean is nothing but rounding.
        const double bound = 4.0 * static_cast<double>(cols + 8) * 0x1p-24 + rounding(type);
        for (std::size_t i = 0; i < found.size(); ++i)
          ASSERT_NEAR(found[i], expected[i], bound * (std::abs(expected[i]) + 1.0)) << cols;
      }
}

TEST(DecoderLanes, ActivationsMatchTheCpu) {
  std::vector<float> values = draw(500, 5, 12.0f);
  values.insert(values.end(), {0.0f, -0.0f, 100.0f, -100.0f, 1e-20f, -20.0f});
  const std::vector<float> ups = draw(static_cast<int64_t>(values.size()), 6);
  const auto cols = static_cast<int64_t>(values.size());
  for (const Activation activation :
       {Activation::kRelu, Activation::kGeluTanh, Activation::kGeluErf, Activation::kSilu})
    for (const bool gated : {false, true}) {
      std::vector<float> expected = values;
      const MatView<float> view(expected.data(), 1, cols);
      if (gated)
        activate_gated(activation, view, {ups.data(), 1, cols});
      else
        activate(activation, view);
      StoredRows x(values, cols, DType::kF32), up(ups, cols, DType::kF32), out(values, cols, DType::kF32);
      const ActivationJob job{activation, x.rows, gated ? up.rows : DeviceRows(), out.rows};
      for (int64_t c = 0; c < cols; ++c) activate_one(job, 0, c);
      const std::vector<float> found = out.read();
      // Both are within about 1e-6 of the exact function, but for exp(-x²) and the like, whose argument is
      // rounded to x² 2^-24 first. Below 1e-30 it is 0 for any use.
      for (std::size_t i = 0; i < found.size(); ++i) {
        const double relative = 4e-6 + 2.0 * double{values[i]} * double{values[i]} * 0x1p-23;
        ASSERT_NEAR(found[i], expected[i], relative * std::abs(expected[i]) + 1e-30) << values[i];
      }
    }
}

TEST(DecoderLanes, SumsAndGathersByHand) {
  StoredRows x({1, 2, 3, 4}, 2, DType::kF32), y({0.5f, 0.25f, -1, 8}, 2, DType::kBF16);
  for (int64_t r = 0; r < 2; ++r)
    for (int64_t c = 0; c < 2; ++c) add_one({x.rows, y.rows, 2.0f}, r, c);
  EXPECT_EQ(x.read(), (std::vector<float>{3, 4.5f, 4, 24}));
  for (int64_t r = 0; r < 2; ++r)
    for (int64_t c = 0; c < 2; ++c) add_one({x.rows, {}, 0.5f}, r, c);
  EXPECT_EQ(x.read(), (std::vector<float>{1.5f, 2.25f, 2, 12}));
  const int32_t indices[] = {2, 0, 2};
  StoredRows table({1, 2, 3, 4, 5, 6}, 2, DType::kF16), out({9, 9, 9, 9, 9, 9}, 2, DType::kF32);
  for (const bool adds : {false, true})
    for (int64_t r = 0; r < 3; ++r)
      for (int64_t c = 0; c < 2; ++c) gather_one({table.rows, indices, out.rows, adds}, r, c);
  EXPECT_EQ(out.read(), (std::vector<float>{10, 12, 2, 4, 10, 12}));
}

TEST(DecoderLanes, RotationIsRopesOwnForEveryScaling) {
  const std::vector<int64_t> positions = {0, 1, 17, 4095, 131072};
  const auto rows = static_cast<int64_t>(positions.size());
  for (const auto kind : {RopeScaling::Kind::kNone, RopeScaling::Kind::kLinear, RopeScaling::Kind::kLlama3})
    for (const int rotary_dim : {64, 20}) {
      RopeScaling scaling;
      scaling.kind = kind;
      scaling.factor = 8.0;
      const Rope rope(64, rotary_dim, 10000.0, scaling);
      std::vector<float> expected = draw(rows * 3 * 64, 7);
      StoredRows x(expected, 3 * 64, DType::kF32);
      rope.rotate_rows({expected.data(), rows, 3 * 64}, positions);
      const RopeJob job{x.rows, positions.data(), rope.inverse_frequencies().data(), 64, rotary_dim};
      for (int64_t r = 0; r < rows; ++r)
        for (int64_t pair = 0; pair < 3 * rotary_dim / 2; ++pair) rotate_one(job, r, pair);
      // The host's cosines are the same; vectors may fuse a product and a sum.
      const std::vector<float> found = x.read();
      for (std::size_t i = 0; i < found.size(); ++i) ASSERT_NEAR(found[i], expected[i], 0x1p-22);
    }
}

TEST(EncodeLanes, AppendsWhatTheCpuWouldStore) {
  constexpr int kHeads = 2, kDim = 16, kRotary = 12;
  constexpr int64_t kRows = 5;
  const Rope rope(kDim, kRotary, 10000.0, {});
  const std::vector<int64_t> turns = {0, 3, 100, 2, 77};
  const std::vector<float> keys = draw(kRows * kHeads * kDim, 8), values = draw(kRows * kHeads * kDim, 9);
  for (const SideKind kind :
       {SideKind::kF32, SideKind::kF16, SideKind::kBF16, SideKind::kE4M3, SideKind::kE5M2})
    for (const bool turned : {false, true}) {
      std::vector<float> expected = keys;
      // Turned by the code that the test above compares with Rope, whose vectors may fuse.
      const RopeJob rotation{{expected.data(), DType::kF32, kRows, kHeads * kDim, kHeads * kDim},
                             turns.data(),
                             rope.inverse_frequencies().data(),
                             kDim,
                             kRotary};
      for (int64_t i = 0; turned && i < kRows * kHeads * kRotary / 2; ++i)
        rotate_one(rotation, i / (kHeads * kRotary / 2), i % (kHeads * kRotary / 2));
      const std::size_t bytes_each = static_cast<std::size_t>(side_bits(kind)) / 8;
      std::vector<std::byte> key_bytes(keys.size() * bytes_each), value_bytes(key_bytes.size());
      std::vector<AppendTarget> targets;
      for (std::size_t i = 0; i < kRows * kHeads; ++i)
        targets.push_back(
            {key_bytes.data() + i * kDim * bytes_each, value_bytes.data() + i * kDim * bytes_each});
      const AppendJob job{
          keys.data(),         values.data(), kRows, kHeads,       kDim,
          targets.data(),      kind,          kind,  turns.data(), rope.inverse_frequencies().data(),
          turned ? kRotary : 0};
      for (int64_t r = 0; r < kRows; ++r)
        for (int64_t c = 0; c < kHeads * kDim; ++c) append_one(job, r, c);
      const auto stored = [&](const std::vector<float>& numbers) {
        std::vector<std::byte> bytes(numbers.size() * bytes_each);
        for (std::size_t i = 0; i < numbers.size(); ++i)
          put_dense(kind, bytes.data(), static_cast<int64_t>(i), numbers[i]);
        return bytes;
      };
      EXPECT_EQ(key_bytes, stored(expected)) << "kind " << static_cast<int>(kind);
      std::vector<std::byte> by_cpu(values.size() * bytes_each);
      const auto count = static_cast<int64_t>(values.size());
      if (bytes_each == 1)
        fp8_from_f32(values.data(), kind == SideKind::kE4M3 ? Fp8::kE4M3 : Fp8::kE5M2,
                     reinterpret_cast<uint8_t*>(by_cpu.data()), count);
      else
        from_f32(values.data(),
                 kind == SideKind::kF32   ? DType::kF32
                 : kind == SideKind::kF16 ? DType::kF16
                                          : DType::kBF16,
                 by_cpu.data(), count);
      EXPECT_EQ(value_bytes, by_cpu) << "kind " << static_cast<int>(kind);
    }
}

TEST(EncodeLanes, HadamardIsTheCpusToTheBit) {
  HostWarp warp;
  for (int32_t cols = 1; cols <= 256; cols *= 2) {
    std::vector<float> row = draw(cols, static_cast<unsigned>(cols)), expected = row;
    std::vector<float> shared(row.size());
    hadamard_rows({expected.data(), 1, cols});
    warp.run([&](HostWarp::Lane& lane) { hadamard_row(lane, row.data(), cols, shared.data()); });
    EXPECT_EQ(row, expected) << cols;
  }
}

}  // namespace
}  // namespace kva
