// Pages that equal an earlier one, on a device: each is hashed, hashes are sorted, and pages of one hash are
// compared byte by byte with the first of them.
//
// `Block` and `Warp` as in kernels/similarity_lanes.h.
#pragma once

#include <cstddef>
#include <cstdint>

#include "kernels/host_device.h"

namespace kva {

// Pages of tokens of several heads: page p is head p % heads of the p / heads-th group of pages, whose tokens
// lie one after the other: [groups, heads, tokens, token_bytes]. token_bytes is even.
struct PageTokens {
  const std::byte* stored = nullptr;
  int64_t heads = 0;
  int64_t tokens = 0;  // of a page
  int64_t token_bytes = 0;
  // Null, or which token of all groups stands at place group * tokens + token instead.
  const int64_t* order = nullptr;

  KVA_HOST_DEVICE const std::byte* token(int64_t page, int64_t t) const {
    const int64_t slot = page / heads * tokens + t;
    const int64_t source = order ? order[slot] : slot;
    const int64_t at = (source / tokens * heads + page % heads) * tokens + source % tokens;
    return stored + at * token_bytes;
  }
};

// *duplicates = how many of `count` pages equal an earlier one. All addresses are the device's.
struct DuplicateJob {
  PageTokens pages;
  int32_t count = 0;
  // Scratch, [count] each.
  uint64_t* hashes = nullptr;
  int32_t* indices = nullptr;
  uint64_t* sorted_hashes = nullptr;
  int32_t* sorted = nullptr;
  uint64_t* duplicates = nullptr;
};

// As SplitMix64 mixes its counter.
KVA_HOST_DEVICE inline uint64_t mixed_bits(uint64_t value) {
  value = (value ^ (value >> 30)) * 0xbf58476d1ce4e5b9u;
  value = (value ^ (value >> 27)) * 0x94d049bb133111ebu;
  return value ^ (value >> 31);
}

// Adds one lane's part to the page's hash: a sum over its 16-bit words and where they stand.
template <class Block>
KVA_LANE_CODE void hash_page(Block& block, const DuplicateJob& job, int32_t page, int32_t lane) {
  const int64_t words = job.pages.token_bytes / 2;
  uint64_t hash = 0;
  for (int64_t t = 0; t < job.pages.tokens; ++t) {
    const auto* token = reinterpret_cast<const uint16_t*>(job.pages.token(page, t));
    for (int64_t w = lane; w < words; w += 32)
      hash += mixed_bits((static_cast<uint64_t>(t * words + w + 1) * 0x9e3779b97f4a7c15u) ^ token[w]);
  }
  block.add(job.hashes + page, hash);
}

// The first place of the sorted hashes that holds what place k holds.
KVA_HOST_DEVICE inline int32_t first_of_run(const DuplicateJob& job, int32_t k) {
  const uint64_t hash = job.sorted_hashes[k];
  int32_t first = 0, last = k;
  while (first < last) {
    const int32_t middle = first + (last - first) / 2;
    if (job.sorted_hashes[middle] < hash)
      first = middle + 1;
    else
      last = middle;
  }
  return first;
}

// Counts place k of the sorted hashes, k >= 1, where its page equals the first of its run.
template <class Warp, class Block>
KVA_LANE_CODE void count_if_equal(Warp& warp, Block& block, const DuplicateJob& job, int32_t k) {
  if (job.sorted_hashes[k] != job.sorted_hashes[k - 1]) return;  // the same for all lanes
  const int32_t one = job.sorted[first_of_run(job, k)], other = job.sorted[k];
  const int64_t words = job.pages.token_bytes / 2;
  float differing = 0.0f;
  for (int64_t t = 0; t < job.pages.tokens; ++t) {
    const auto* a = reinterpret_cast<const uint16_t*>(job.pages.token(one, t));
    const auto* b = reinterpret_cast<const uint16_t*>(job.pages.token(other, t));
    for (int64_t w = warp.lane(); w < words; w += 32)
      if (a[w] != b[w]) differing = 1.0f;
  }
  for (int mask = 16; mask > 0; mask /= 2) differing += warp.shuffle_xor(differing, mask);
  if (warp.lane() == 0 && differing == 0.0f) block.add_one(job.duplicates, 1);
}

}  // namespace kva
