// Covers and exact duplicates of pages on a device beside plain loops.
#pragma once

#include <cstring>
#include <map>
#include <string>

#include "tests/kernels/similarity_case.h"

namespace kva {

// In two parts, where there are enough pages: the first among each other, then the rest against them and
// among each other.
inline void expect_cover_as_on_the_cpu(DeviceOps& device, int64_t count, int64_t numbers) {
  const auto pages = static_cast<std::size_t>(count);
  const std::vector<float> thresholds = {0.05f, 0.2f, 0.9f};
  const SmallPages host = small_pages(count, numbers);
  const PagesOnDevice there(device, host);
  const OnDevice<float> dots(device, pages * pages, 0.0f);
  const OnDevice<uint32_t> near(device, pages * pages + 1, 0u), freed(device, pages, 0u);
  const OnDevice<uint16_t> over(device, pages * pages, uint16_t{0});
  CoverJob job;
  job.dots = dots.data();
  job.norms = there.norms();
  job.exact = there.exact();
  std::copy(thresholds.begin(), thresholds.end(), job.thresholds);
  job.threshold_count = static_cast<int32_t>(thresholds.size());
  job.near = near.data() + 1;
  job.near_count = near.data();
  job.over = over.data();
  job.freed = freed.data();
  // Products ask for aligned rows.
  const auto half = static_cast<int32_t>(count / 2 / 64 * 64), rest = static_cast<int32_t>(count) - half;
  const auto take = [&](int32_t row, int32_t rows, int32_t column, int32_t columns) {
    job.row = row;
    job.rows = rows;
    job.column = column;
    job.columns = columns;
    there.multiply(row, rows, column, columns, dots.data());
    device.cover(job);
  };
  if (half > 0) take(0, half, 0, half);
  if (half > 0) take(half, rest, 0, half);
  take(half, rest, half, rest);

  const auto similarities = product_similarities(host);
  const auto found = freed.read();
  for (std::size_t metric = 0; metric < 2; ++metric)
    for (std::size_t t = 0; t < thresholds.size(); ++t) {
      std::vector<bool> is_freed(pages);
      for (std::size_t i = 0; i < pages; ++i) {
        for (std::size_t j = 0; j < i; ++j)
          if (!is_freed[j] && similarities[2 * metric][i * pages + j] > thresholds[t]) is_freed[i] = true;
        ASSERT_EQ(found[i] >> (metric * kMaxThresholds + t) & 1, is_freed[i] ? 1U : 0U)
            << "page " << i << ", metric " << metric << ", threshold " << t;
      }
    }
}

// Pages of three tokens and two heads, many of them equal, with tokens in another order.
inline void expect_duplicates_as_on_the_cpu(DeviceOps& device, int64_t groups, int64_t token_bytes) {
  constexpr int64_t kHeads = 2, kTokens = 3;
  const int64_t count = groups * kHeads, page_bytes = kTokens * token_bytes;
  std::vector<std::byte> stored(static_cast<std::size_t>(count * page_bytes));
  for (std::size_t at = 0; at < stored.size(); ++at)
    stored[at] = static_cast<std::byte>(static_cast<int64_t>(at) / token_bytes % 3);
  std::vector<int64_t> order;
  for (int64_t slot = 0; slot < groups * kTokens; ++slot) order.push_back(groups * kTokens - 1 - slot);
  PageTokens pages{stored.data(), kHeads, kTokens, token_bytes, order.data()};
  std::map<std::string, int64_t> seen;
  uint64_t expected = 0;
  for (int64_t p = 0; p < count; ++p) {
    std::string page;
    for (int64_t t = 0; t < kTokens; ++t)
      page.append(reinterpret_cast<const char*>(pages.token(p, t)), static_cast<std::size_t>(token_bytes));
    if (++seen[page] > 1) ++expected;
  }
  const auto places = static_cast<std::size_t>(count);
  const OnDevice<std::byte> bytes(device, std::span<const std::byte>(stored));
  const OnDevice<int64_t> order_there(device, std::span<const int64_t>(order));
  const OnDevice<uint64_t> hashes(device, 2 * places + 1, uint64_t{7});
  const OnDevice<int32_t> indices(device, 2 * places, 7);
  pages.stored = bytes.data();
  pages.order = order_there.data();
  device.count_duplicates({.pages = pages,
                           .count = static_cast<int32_t>(count),
                           .hashes = hashes.data(),
                           .indices = indices.data(),
                           .sorted_hashes = hashes.data() + count,
                           .sorted = indices.data() + count,
                           .duplicates = hashes.data() + 2 * count});
  EXPECT_EQ(hashes.read().back(), expected) << groups << " groups of " << token_bytes << " bytes";
}

}  // namespace kva
