#include <algorithm>
#include <cstddef>
#include <span>
#include <string>
#include <vector>

#include "kernels/pack_cuda.h"
#include "tests/bench/gpu/cases.h"
#include "tests/bench/gpu/measuring.h"
#include "tests/bench/gpu/pages.h"

namespace kva {
namespace {

// Pages of f16, as they fill.
void pack_case(const std::string& name, SideKind kind, ScaleAxis axis, bool has_outliers, double copy) {
  constexpr int32_t kWidth = 128;
  constexpr int64_t kPageBytes = int64_t{kPageTokens} * kWidth * 2;
  constexpr auto kSides = static_cast<int32_t>(kLeastBytes / kPageBytes);
  const SideFormat format = page_format(kind, kWidth, axis, has_outliers ? outliers_of(kWidth) : 0);
  const DeviceBuffer pages = random_bytes(kSides * kPageBytes),
                     payloads(static_cast<std::size_t>(kSides) * static_cast<std::size_t>(format.bytes)),
                     scratch(static_cast<std::size_t>(kSides * pack_scratch({.format = format}).bytes + 16)),
                     refused(sizeof(int32_t));
  std::vector<PackSide> sides;
  for (int32_t i = 0; i < kSides; ++i)
    sides.push_back({.source = pages.as<std::byte>() + i * kPageBytes,
                     .payload = payloads.as<std::byte>() + int64_t{i} * format.bytes});
  const DeviceBuffer sides_there = DeviceBuffer::holding(std::span<const PackSide>(sides));
  const double ms = median_ms([&] {
    pack_cuda({.format = format,
               .sides = sides_there.as<PackSide>(),
               .count = kSides,
               .scratch = scratch.as<std::byte>(),
               .refused = refused.as<int32_t>()},
              nullptr);
  });
  print_row("quantize and pack, " + name, static_cast<double>(pages.bytes() + payloads.bytes()), ms, copy);
}

// What other methods than quant make of pages of f16. shared: f16 numbers of what sides share.
void coding_case(const std::string& name, PackJob job, int64_t shared, double copy) {
  const int64_t page_bytes = int64_t{kPageTokens} * job.format.width * 2;
  const auto count = static_cast<int32_t>(kLeastBytes / page_bytes);
  const int64_t side = side_bytes(job.format, kPageTokens);
  const bool scales = job.format.kind == SideKind::kScaledBase;
  const DeviceBuffer pages = random_bytes(count * page_bytes),
                     others = random_bytes(job.blends || scales ? count * page_bytes : 16),
                     numbers = random_bytes(std::max<int64_t>(shared, 1) * 2),
                     basis = random_bytes(int64_t{job.format.width} * job.format.width * 2);
  job.format.shared[kSharedNumbers] = numbers.as<void>();
  if (job.format.on_basis) job.basis = basis.as<void>();
  const DeviceBuffer payloads(static_cast<std::size_t>(count * ((side + 15) / 16 * 16))),
      scratch(static_cast<std::size_t>(count * pack_scratch(job).bytes + 16)), refused(sizeof(int32_t));
  std::vector<PackSide> sides;
  for (int32_t i = 0; i < count; ++i)
    sides.push_back({.source = pages.as<std::byte>() + i * page_bytes,
                     .other_source = others.as<std::byte>() + (job.blends ? i * page_bytes : 0),
                     .base = others.as<std::byte>() + (scales ? i * page_bytes : 0),
                     .payload = payloads.as<std::byte>() + i * ((side + 15) / 16 * 16)});
  const DeviceBuffer sides_there = DeviceBuffer::holding(std::span<const PackSide>(sides));
  job.tokens = kPageTokens;
  job.sides = sides_there.as<PackSide>();
  job.count = count;
  job.scratch = scratch.as<std::byte>();
  job.refused = refused.as<int32_t>();
  const double ms = median_ms([&] { pack_cuda(job, nullptr); });
  const double read = static_cast<double>(pages.bytes()) * (job.blends || scales ? 2.0 : 1.0);
  print_row("code, " + name, read + static_cast<double>(count) * static_cast<double>(side), ms, copy);
}

void coding_cases(double copy) {
  constexpr int32_t kWidth = 128;
  SideFormat levels;
  levels.kind = SideKind::kLevels4;
  levels.width = levels.group = kWidth;
  levels.tokens = kPageTokens;
  levels.scales_at = 0;
  levels.codes_at = kPageTokens * 2;
  levels.bytes = levels.codes_at + kPageTokens * kWidth / 2;
  SideFormat turned = levels;
  turned.on_basis = true;
  levels.zeros_at = kPageTokens * 2;
  levels.codes_at += kPageTokens * 2;
  levels.bytes += kPageTokens * 2;
  coding_case("nuq, 4 bits", {.format = levels}, 16, copy);
  coding_case("turboquant, 4 bits", {.format = turned}, 16, copy);
  SideFormat centroids;
  centroids.kind = SideKind::kCentroids;
  centroids.width = kWidth;
  centroids.tokens = kPageTokens;
  centroids.parts = 16;
  centroids.bytes = kPageTokens * centroids.parts;
  coding_case("pq, 16 parts of 8 bits", {.format = centroids}, int64_t{kWidth} << 8, copy);
  SideFormat directions;
  directions.width = kWidth;
  directions.bytes = kWidth * 2;
  coding_case("minicache, directions", {.format = directions, .blends = true, .share = 0.6}, 0, copy);
  SideFormat along;
  along.kind = SideKind::kScaledBase;
  along.width = kWidth;
  along.tokens = kPageTokens;
  along.factors_at = 0;
  along.retained = 4;
  along.retained_at = kPageTokens * 2;
  along.retained_rows_at = along.retained_at + along.retained * 2;
  along.bytes = along.retained_rows_at + along.retained * kWidth * 2;
  coding_case("minicache, lengths", {.format = along, .base = directions}, 0, copy);
}

}  // namespace

void packing_cases(double copy) {
  pack_case("4 bits, values, a scale a token", SideKind::kBits4, ScaleAxis::kToken, false, copy);
  pack_case("4 bits, keys, a scale a token", SideKind::kBits4ByChannel, ScaleAxis::kToken, false, copy);
  pack_case("4 bits, keys, a scale a channel", SideKind::kBits4ByChannel, ScaleAxis::kChannel, false, copy);
  pack_case("4 bits, values, a scale a token, 1% outliers", SideKind::kBits4, ScaleAxis::kToken, true, copy);
  pack_case("4 bits, keys, a scale a channel, 1% outliers", SideKind::kBits4ByChannel, ScaleAxis::kChannel,
            true, copy);
  coding_cases(copy);
}

}  // namespace kva
