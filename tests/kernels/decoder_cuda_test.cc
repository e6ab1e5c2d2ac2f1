// The decoder's steps, sampling, products and page writing by the CUDA kernels, against the same code on the
// host, which other tests compare with the CPU's kernels. Skips without a device.
#include "kernels/decoder_cuda.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <cstring>
#include <limits>
#include <numeric>
#include <random>
#include <vector>

#include "kernels/device_buffer.h"
#include "kernels/encode_cuda.h"
#include "kernels/matmul_cuda.h"
#include "kernels/pack_cuda.h"
#include "kernels/pack_lanes.h"
#include "tests/kernels/device_sides.h"
#include "tests/kernels/host_block.h"
#include "tests/kernels/host_warp.h"

namespace kva {
namespace {

class CudaDecoder : public ::testing::Test {
 protected:
  void SetUp() override {
    if (cuda_device_count() == 0) GTEST_SKIP() << "no CUDA device";
  }
};

constexpr DType kTypes[] = {DType::kF32, DType::kF16, DType::kBF16};

std::vector<float> draw(int64_t count, unsigned seed) {
  std::mt19937 random(seed);
  std::vector<float> values(static_cast<std::size_t>(count));
  for (float& x : values) x = static_cast<float>(random() >> 8) / 4194304.0f - 2.0f;
  return values;
}

// Rows on the host and the same on the device, with room and a guard behind each row.
struct BothRows {
  BothRows(const std::vector<float>& values, int64_t cols, DType type, int64_t room = 3)
      : bytes(values.size() / static_cast<std::size_t>(cols) * static_cast<std::size_t>(cols + room) * 4),
        host{bytes.data(), type, static_cast<int64_t>(values.size()) / cols, cols, cols + room},
        buffer(bytes.size()) {
    for (int64_t r = 0; r < host.rows; ++r)
      for (int64_t c = 0; c < host.stride; ++c)
        host.put(r, c, c < cols ? values[static_cast<std::size_t>(r * cols + c)] : 1024.0f);
    buffer.upload(bytes.data(), bytes.size());
    device = host;
    device.data = buffer.as<void>();
  }
  // Whether the device's rows are the host's: within `relative` of each number and of 1; guards to the bit.
  void expect_equal(double relative) const {
    std::vector<std::byte> found(bytes.size());
    buffer.download(found.data(), found.size());
    DeviceRows rows = host;
    rows.data = found.data();
    for (int64_t r = 0; r < host.rows; ++r)
      for (int64_t c = 0; c < host.stride; ++c) {
        const double wanted = double{host.at(r, c)};
        ASSERT_NEAR(rows.at(r, c), wanted, c < host.cols ? relative * (std::abs(wanted) + 1.0) : 0.0)
            << "row " << r << ", number " << c;
      }
  }

  std::vector<std::byte> bytes;
  DeviceRows host;
  DeviceRows device;
  DeviceBuffer buffer;
};

// Another order of a sum, or exp() of another library: some roundings; and one of the type that it is stored
// in.
double bound(DType type, int64_t terms) {
  const double step = type == DType::kF32 ? 0x1p-23 : type == DType::kF16 ? 0x1p-10 : 0x1p-7;
  return step + 4.0 * static_cast<double>(terms + 8) * 0x1p-24;
}

template <typename T>
DeviceBuffer upload(const std::vector<T>& values) {
  return DeviceBuffer::holding(std::span<const T>(values));
}

TEST_F(CudaDecoder, Norms) {
  for (const DType type : kTypes)
    for (const int64_t cols : {1, 33, 576})
      for (const bool centred : {false, true}) {
        BothRows x(draw(13 * cols, 1), cols, type), out(draw(13 * cols, 2), cols, type);
        const std::vector<float> weight = draw(cols, 3), bias = draw(cols, 4);
        const DeviceBuffer device_weight = upload(weight), device_bias = upload(bias);
        HostWarp warp;
        for (int64_t r = 0; r < 13; ++r)
          warp.run([&](HostWarp::Lane& lane) {
            norm_row(lane, {x.host, out.host, weight.data(), bias.data(), 1e-5f, centred}, r);
          });
        norm_cuda({x.device, out.device, device_weight.as<float>(), device_bias.as<float>(), 1e-5f, centred},
                  nullptr);
        out.expect_equal(bound(type, cols));
      }
}

TEST_F(CudaDecoder, ActivationsSumsGathersAndRotations) {
  const std::vector<int32_t> indices = {3, 0, 3, 1, 2};
  const std::vector<int64_t> positions = {0, 1, 17, 4095, 131072};
  const std::vector<float> frequencies = {1.0f, 0.31f, 0.01f, 1e-4f};
  const DeviceBuffer device_indices = upload(indices), device_positions = upload(positions),
                     device_frequencies = upload(frequencies);
  for (const DType type : kTypes) {
    BothRows x(draw(5 * 48, 1), 48, type), y(draw(5 * 48, 2), 48, type), out(draw(5 * 48, 3), 48, type),
        table(draw(4 * 48, 4), 48, type);
    for (const Activation activation :
         {Activation::kRelu, Activation::kGeluTanh, Activation::kGeluErf, Activation::kSilu}) {
      for (int64_t i = 0; i < 5 * 48; ++i)
        activate_one({activation, x.host, y.host, out.host}, i / 48, i % 48);
      activate_cuda({activation, x.device, y.device, out.device}, nullptr);
      out.expect_equal(bound(type, 0));
    }
    for (int64_t i = 0; i < 5 * 48; ++i) {
      gather_one({table.host, indices.data(), out.host, false}, i / 48, i % 48);
      gather_one({table.host, indices.data(), out.host, true}, i / 48, i % 48);
      add_one({out.host, y.host, 0.5f}, i / 48, i % 48);
    }
    gather_cuda({table.device, device_indices.as<int32_t>(), out.device, false}, nullptr);
    gather_cuda({table.device, device_indices.as<int32_t>(), out.device, true}, nullptr);
    add_cuda({out.device, y.device, 0.5f}, nullptr);
    out.expect_equal(bound(type, 0));
    const RopeJob rotation{x.host, positions.data(), frequencies.data(), 12, 8};
    for (int64_t i = 0; i < 5 * 16; ++i) rotate_one(rotation, i / 16, i % 16);
    rope_cuda({x.device, device_positions.as<int64_t>(), device_frequencies.as<float>(), 12, 8}, nullptr);
    x.expect_equal(bound(type, 0));
  }
}

TEST_F(CudaDecoder, ChoosesTokens) {
  for (const int32_t vocabulary : {1, 33, 5000, 50272}) {
    std::vector<float> logits = draw(vocabulary, static_cast<unsigned>(vocabulary));
    std::vector<int32_t> order(logits.size());
    std::iota(order.begin(), order.end(), 0);
    std::stable_sort(order.begin(), order.end(), [&](int32_t a, int32_t b) {
      return descending_key(logits[static_cast<std::size_t>(a)]) <
             descending_key(logits[static_cast<std::size_t>(b)]);
    });
    const DeviceBuffer device_logits = upload(logits);
    const DeviceBuffer workspace(static_cast<std::size_t>(choose_workspace_bytes(vocabulary, true)));
    const DeviceBuffer token(sizeof(int32_t));
    for (const double temperature : {0.0, 0.7})
      for (const int32_t top_k : {0, 40})
        for (const double top_p : {1.0, 0.9}) {
          SampleJob job{logits.data(), order.data(), vocabulary, top_k, top_p, temperature, 0.625};
          if (top_k == 0 && top_p == 1.0) job.order = nullptr;
          int32_t expected = order[0];
          HostWarp warp;
          SampleState state;
          if (temperature > 0.0)
            warp.run([&](HostWarp::Lane& lane) {
              const int32_t picked =
                  sample(lane, job, {logits[static_cast<std::size_t>(order[0])], order[0]}, state);
              if (lane.lane() == 0) expected = picked;
            });
          job.logits = device_logits.as<float>();
          choose_cuda(job, workspace.as<void>(), static_cast<int64_t>(workspace.bytes()), token.as<int32_t>(),
                      nullptr);
          int32_t found = 0;
          token.download(&found, sizeof found);
          EXPECT_EQ(found, expected) << vocabulary << " tokens, top-k " << top_k << ", top-p " << top_p;
        }
    logits.back() = std::numeric_limits<float>::quiet_NaN();
    const DeviceBuffer faulty = upload(logits);
    choose_cuda({faulty.as<float>(), nullptr, vocabulary, 0, 1.0, 0.0, 0.0}, workspace.as<void>(),
                static_cast<int64_t>(workspace.bytes()), token.as<int32_t>(), nullptr);
    int32_t found = 0;
    token.download(&found, sizeof found);
    EXPECT_EQ(found, -vocabulary);
  }
}

TEST_F(CudaDecoder, Products) {
  DeviceMatmul matmul;
  for (const DType type : kTypes)
    for (const int64_t rows : {1, 3, 65})
      for (const bool adds : {false, true}) {
        constexpr int64_t kInputs = 72, kOutputs = 40;
        BothRows x(draw(rows * kInputs, 1), kInputs, type, 0),
            weights(draw(kOutputs * kInputs, 2), kInputs, type, 0),
            out(draw(rows * kOutputs, 3), kOutputs, DType::kF32, 0);
        const std::vector<float> bias = draw(kOutputs, 4);
        const DeviceBuffer device_bias = upload(bias);
        for (int64_t r = 0; r < rows; ++r)
          for (int64_t o = 0; o < kOutputs; ++o) {
            double sum = double{bias[static_cast<std::size_t>(o)]} + (adds ? double{out.host.at(r, o)} : 0.0);
            for (int64_t i = 0; i < kInputs; ++i)
              sum += double{x.host.at(r, i)} * double{weights.host.at(o, i)};
            out.host.put(r, o, static_cast<float>(sum));
          }
        matmul.run({x.device,
                    {weights.device.data, type, kOutputs, kInputs},
                    device_bias.as<float>(),
                    out.device,
                    adds},
                   nullptr);
        // 72 products of numbers up to 4, in f32.
        out.expect_equal(2.0 * 72 * 72 * 4 * 0x1p-24);
      }
}

// Outputs of more than one tile, by an odd number of inputs in groups of 64. Whole numbers whose groups have
// the scale 1: sums in any order are exact.
TEST_F(CudaDecoder, ProductsWithCodedWeights) {
  constexpr int64_t kInputs = 4100, kOutputs = 1100, kRows = 3;
  const auto whole = [](int64_t count, int64_t step, int64_t most) {
    std::vector<float> values(static_cast<std::size_t>(count));
    for (int64_t i = 0; i < count; ++i)
      values[static_cast<std::size_t>(i)] = static_cast<float>(i * step % (2 * most + 1) - most);
    return values;
  };
  std::vector<float> wide = whole(kOutputs * kInputs, 37, 127);
  for (int64_t o = 0; o < kOutputs; ++o)
    for (int64_t i = 0; i < kInputs; i += kInt8Group)
      wide[static_cast<std::size_t>(o * kInputs + i)] = 127.0f;
  std::vector<int8_t> codes(wide.size());
  std::vector<float> scales(static_cast<std::size_t>(kOutputs * int8_groups(kInputs)));
  quantize_int8({wide.data(), kOutputs, kInputs}, codes.data(), scales.data());
  BothRows x(whole(kRows * kInputs, 5, 3), kInputs, DType::kF32, 0),
      out(whole(kRows * kOutputs, 7, 100), kOutputs, DType::kF32, 0);
  for (int64_t r = 0; r < kRows; ++r)
    for (int64_t o = 0; o < kOutputs; ++o) {
      double sum = double{out.host.at(r, o)};
      for (int64_t i = 0; i < kInputs; ++i)
        sum += double{x.host.at(r, i)} * double{wide[static_cast<std::size_t>(o * kInputs + i)]};
      out.host.put(r, o, static_cast<float>(sum));
    }
  const DeviceBuffer device_codes = DeviceBuffer::holding(std::span<const int8_t>(codes));
  const DeviceBuffer device_scales = upload(scales);
  DeviceMatmul matmul;
  matmul.run({.x = x.device,
              .weights = {device_codes.as<void>(), DType::kF32, kOutputs, kInputs, device_scales.as<float>()},
              .out = out.device,
              .adds = true},
             nullptr);
  out.expect_equal(0.0);
}

// With and without numbers kept beside the codes, lengths kept and Hadamard coordinates.
std::vector<SideFormat> formats_to_code(int64_t tokens, int64_t width, const std::vector<float>& rows) {
  std::vector<SideFormat> formats;
  for (const SideKind kind : {SideKind::kBits8, SideKind::kBits4, SideKind::kBits3, SideKind::kBits2,
                              SideKind::kBits8ByChannel, SideKind::kBits4ByChannel})
    for (const ScaleAxis axis : {ScaleAxis::kToken, ScaleAxis::kChannel})
      for (const bool symmetric : {false, true})
        for (const bool more : {false, true}) {
          const std::vector<float> first(rows.begin(), rows.begin() + tokens * width);
          const SideSpec spec{.kind = kind,
                              .axis = axis,
                              .group = 16,
                              .symmetric = symmetric,
                              .outliers = more ? 0.05 : 0.0,
                              .dense_channels = more ? 2 : 0,
                              .factors = more};
          formats.push_back(make_packed_side(first, width, spec, 1).format);
          formats.back().hadamard = more == symmetric;
        }
  return formats;
}

TEST_F(CudaDecoder, CodesPages) {
  constexpr int64_t kTokens = 17, kWidth = 64, kSides = 3;
  const std::vector<float> rows = draw(kSides * kTokens * kWidth, 1);
  const DeviceBuffer device_rows = upload(rows);
  for (const SideFormat& format : formats_to_code(kTokens, kWidth, rows)) {
    const auto bytes = static_cast<std::size_t>(format.bytes);
    std::vector<std::byte> expected(kSides * bytes, std::byte{0x5a});
    const DeviceBuffer payloads = upload(expected);
    std::vector<double> scratch(
        static_cast<std::size_t>(kSides * pack_scratch({.format = format}).bytes / 8));
    const DeviceBuffer device_scratch = upload(scratch);
    std::vector<PackSide> sides, device_sides;
    for (std::size_t side = 0; side < kSides; ++side) {
      const auto first = static_cast<int64_t>(side) * kTokens * kWidth;
      sides.push_back({.source = reinterpret_cast<const std::byte*>(rows.data() + first),
                       .payload = expected.data() + side * bytes});
      device_sides.push_back({.source = reinterpret_cast<const std::byte*>(device_rows.as<float>() + first),
                              .payload = payloads.as<std::byte>() + side * bytes});
    }
    const std::vector<int32_t> none = {0};
    int32_t refused = 0;
    const DeviceBuffer device_refused = upload(none), sides_there = upload(device_sides);
    PackJob job{.format = format,
                .source_kind = SideKind::kF32,
                .sides = sides.data(),
                .count = kSides,
                .scratch = reinterpret_cast<std::byte*>(scratch.data()),
                .refused = &refused};
    HostWarp warp;
    HostBlock team(warp);
    for (int32_t side = 0; side < kSides; ++side) pack_side(team, job, side);
    job.sides = sides_there.as<PackSide>();
    job.scratch = device_scratch.as<std::byte>();
    job.refused = device_refused.as<int32_t>();
    pack_cuda(job, nullptr);
    std::vector<std::byte> found(expected.size());
    payloads.download(found.data(), found.size());
    EXPECT_EQ(found, expected) << "kind " << static_cast<int>(format.kind);
  }
}

TEST_F(CudaDecoder, Appends) {
  constexpr int64_t kTokens = 17, kWidth = 64;
  const std::vector<float> rows = draw(3 * kTokens * kWidth, 1);
  const DeviceBuffer device_rows = upload(rows);
  const std::vector<float> frequencies(8, 0.01f);
  const std::vector<int64_t> turns(3 * kTokens, 5);
  const DeviceBuffer device_frequencies = upload(frequencies), device_turns = upload(turns);
  for (const SideKind kind : {SideKind::kF32, SideKind::kF16, SideKind::kBF16, SideKind::kE4M3}) {
    const std::size_t token_bytes = kWidth * static_cast<std::size_t>(side_bits(kind)) / 8;
    std::vector<std::byte> expected(rows.size() * 4), found(expected.size());
    const DeviceBuffer keys = upload(expected), values = upload(expected);
    std::vector<AppendTarget> targets, device_targets;
    std::vector<std::byte> of_values(expected.size());
    for (std::size_t i = 0; i < 3 * kTokens; ++i) {
      targets.push_back({expected.data() + i * token_bytes, of_values.data() + i * token_bytes});
      device_targets.push_back(
          {keys.as<std::byte>() + i * token_bytes, values.as<std::byte>() + i * token_bytes});
    }
    const DeviceBuffer on_device = upload(device_targets);
    // Keys are not turned here: the device's cosines may differ by a rounding, which a stored type shows.
    AppendJob job{rows.data(), rows.data(),  3 * kTokens,        1, kWidth, targets.data(), kind,
                  kind,        turns.data(), frequencies.data(), 0};
    for (int64_t i = 0; i < 3 * kTokens * kWidth; ++i) append_one(job, i / kWidth, i % kWidth);
    job.keys = job.values = device_rows.as<float>();
    job.targets = on_device.as<AppendTarget>();
    job.turns = device_turns.as<int64_t>();
    job.inverse_frequencies = device_frequencies.as<float>();
    append_cuda(job, nullptr);
    keys.download(found.data(), found.size());
    EXPECT_EQ(found, expected) << "kind " << static_cast<int>(kind);
    values.download(found.data(), found.size());
    EXPECT_EQ(found, of_values) << "kind " << static_cast<int>(kind);
  }
}

}  // namespace
}  // namespace kva
