// Coding pages on a GPU: the bytes that the same lane code writes on the host.
#include "kernels/pack_cuda.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <random>
#include <vector>

#include "kernels/device_buffer.h"
#include "kernels/pack_lanes.h"
#include "tests/kernels/device_based_sides.h"
#include "tests/kernels/device_shared_sides.h"
#include "tests/kernels/host_block.h"

namespace kva {
namespace {

constexpr int64_t kTokens = 17, kWidth = 64;
constexpr std::size_t kSides = 3;

template <typename T>
DeviceBuffer upload(const std::vector<T>& values) {
  return DeviceBuffer::holding(std::span<const T>(values));
}

// What is to be done, with addresses of the host's, and the bytes behind them.
struct Coding {
  PackJob job;
  std::vector<uint16_t> shared, basis;
  std::vector<std::byte> base;
};

std::vector<float> draw_rows(unsigned seed) {
  std::mt19937 random(seed);
  std::vector<float> rows(kSides * kTokens * kWidth);
  for (float& x : rows) x = static_cast<float>(random() >> 8) / 4194304.0f - 2.0f;
  return rows;
}

std::vector<float> first_page(const std::vector<float>& rows) {
  return {rows.begin(), rows.begin() + kTokens * kWidth};
}

Coding coding_of(const HostSide& side) {
  Coding coding;
  coding.job.format = side.format;
  coding.job.split_front();
  coding.shared = side.shared;
  std::sort(coding.shared.begin(), coding.shared.end(),
            [](uint16_t a, uint16_t b) { return f32_from_f16(a) < f32_from_f16(b); });
  return coding;
}

std::vector<Coding> codings() {
  const std::vector<float> rows = first_page(draw_rows(1));
  std::vector<Coding> all;
  for (const SideKind kind : {SideKind::kLevels8, SideKind::kLevels4, SideKind::kLevels3ByChannel})
    for (const double outliers : {0.0, 0.05})
      all.push_back(coding_of(make_levels_side(
          rows, kWidth, {.kind = kind, .axis = ScaleAxis::kChannel, .outliers = outliers}, 2)));
  // Outliers, some that are looked for among runs of numbers and some among all.
  const std::vector<float> whole(rows.begin(), rows.begin() + 16 * kWidth);
  for (const double outliers : {0.01, 0.3, 1.0})
    for (const bool by_channel : {false, true})
      all.push_back(
          coding_of(make_packed_side(by_channel ? whole : rows, kWidth,
                                     {.kind = by_channel ? SideKind::kBits4ByChannel : SideKind::kBits3,
                                      .axis = by_channel ? ScaleAxis::kChannel : ScaleAxis::kToken,
                                      .outliers = outliers},
                                     2)));
  // Levels for tokens' lengths, on a basis and off one.
  for (const bool turned : {false, true}) {
    all.push_back(
        coding_of(make_levels_side(rows, kWidth, {.kind = SideKind::kLevels4, .symmetric = true}, 3)));
    if (!turned) continue;
    for (const float x : make_basis(kWidth, kWidth, 4)) all.back().basis.push_back(f16_from_f32(x));
    all.back().job.format.on_basis = true;
  }
  for (const int bits : {8, 3}) all.push_back(coding_of(make_centroids_side(kTokens, kWidth, 8, bits, 5)));
  const std::vector<float> behind(rows.begin(), rows.end() - 3 * kWidth);
  all.push_back(coding_of(with_front(make_packed_side(behind, kWidth, {.kind = SideKind::kBits4}, 6), 3, 7)));
  all.push_back(all.back());
  all.back().job.format.hadamard = true;
  // Directions, and what builds on them.
  for (const SideKind kind : {SideKind::kF16, SideKind::kF32, SideKind::kBits4, SideKind::kBits3ByChannel}) {
    const HostSide of =
        make_scaled_side(rows, kWidth, {.kind = kind, .outliers = is_packed(kind) ? 0.02 : 0.0}, 4, 8);
    all.push_back({.job = {.format = of.base_format, .tokens = kTokens, .blends = true, .share = 0.6}});
    all.push_back({.job = {.format = of.format, .base = of.base_format}, .base = of.base});
  }
  return all;
}

// Codes on the host, resp. on the GPU, where `there` keeps what the job reads.
std::vector<std::byte> coded(const Coding& coding, bool on_gpu) {
  const std::vector<float> rows = draw_rows(1), others = draw_rows(9);
  std::vector<DeviceBuffer> there;
  there.reserve(16);
  const auto address = [&]<typename T>(const std::vector<T>& of) -> const T* {
    if (!on_gpu || of.empty()) return of.data();
    there.push_back(upload(of));
    return there.back().as<T>();
  };
  PackJob job = coding.job;
  job.source_kind = SideKind::kF32;
  job.format.shared[kSharedNumbers] = address(coding.shared);
  job.basis = coding.basis.empty() ? nullptr : address(coding.basis);
  const std::byte* base = address(coding.base);
  const auto* rows_there = reinterpret_cast<const std::byte*>(address(rows));
  const auto* others_there = reinterpret_cast<const std::byte*>(address(others));
  const auto bytes = static_cast<std::size_t>(side_bytes(job.format, kTokens));
  std::vector<std::byte> payloads(kSides * bytes, std::byte{0x5a});
  std::vector<double> scratch(kSides * static_cast<std::size_t>(pack_scratch(job).bytes) / 8 + 2);
  std::vector<int32_t> refused = {0};
  auto* payloads_there = const_cast<std::byte*>(address(payloads));
  std::vector<PackSide> sides;
  for (std::size_t i = 0; i < kSides; ++i) {
    const std::size_t first = i * kTokens * kWidth * sizeof(float);
    sides.push_back({.source = rows_there + first,
                     .other_source = others_there + first,
                     .base = base,
                     .payload = payloads_there + i * bytes});
  }
  job.sides = address(sides);
  job.count = kSides;
  job.scratch = reinterpret_cast<std::byte*>(const_cast<double*>(address(scratch)));
  job.refused = const_cast<int32_t*>(address(refused));
  if (on_gpu) {
    pack_cuda(job, nullptr);
    for (const DeviceBuffer& buffer : there)
      if (buffer.as<std::byte>() == payloads_there) buffer.download(payloads.data(), payloads.size());
    return payloads;
  }
  HostWarp warp;
  HostBlock team(warp);
  for (std::size_t i = 0; i < kSides; ++i) pack_side(team, job, static_cast<int32_t>(i));
  return payloads;
}

TEST(CudaPacking, CodesAsTheHostsLanesDo) {
  if (cuda_device_count() == 0) GTEST_SKIP() << "no CUDA device";
  const std::vector<Coding> all = codings();
  for (std::size_t i = 0; i < all.size(); ++i)
    EXPECT_EQ(coded(all[i], true), coded(all[i], false))
        << "coding " << i << " of kind " << static_cast<int>(all[i].job.format.kind);
}

}  // namespace
}  // namespace kva
