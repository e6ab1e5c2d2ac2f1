// What a launch of attention reads and writes. All addresses are the device's (or, in tests, the host's).
#pragma once

#include <cstdint>

#include "kernels/attention_work.h"
#include "kernels/device_page.h"

namespace kva {

struct AttentionJob {
  const AttentionItem* items = nullptr;
  const int32_t* page_list = nullptr;
  const DevicePage* pages = nullptr;
  const SideFormat* formats = nullptr;
  // [batch rows, kv_heads * group * head_dim], turned to their positions.
  const float* queries = nullptr;
  int64_t query_stride = 0;
  int32_t head_dim = 0;  // a multiple of 8, at most 256
  int32_t group = 1;
  float scale = 1.0f;
  int32_t longest_page = 0;  // tokens
  // Of the items: o [states, head_dim], m and l [states].
  float* state_values = nullptr;
  float* state_max = nullptr;
  float* state_sum = nullptr;
};

// Floats of shared memory that one warp needs: the queries [kItemRows, head_dim], and the scores of a page
// [kItemRows, longest_page].
KVA_HOST_DEVICE constexpr int64_t attention_shared_values(int64_t head_dim, int64_t longest_page) {
  return kItemRows * (head_dim + longest_page);
}

// How many warps share a block, and what it takes of shared memory. Warps of a block have neighbouring items:
// the query rows of one run of pages, so that its bytes come from the device's memory once.
struct AttentionLaunch {
  int32_t blocks = 0;
  int32_t warps = 0;  // of a block
  int64_t shared_bytes = 0;
};
inline constexpr int kMostWarps = 4;
// shared_limit: bytes that a block may have, at least one warp's.
AttentionLaunch attention_launch(int32_t items, int64_t head_dim, int64_t longest_page, int64_t shared_limit);

// How the lanes of a warp share rows of `width` numbers: `lanes` lanes a row, one unit each (some may have
// none), and `rows` rows at once.
struct LaneSplit {
  int32_t lanes;
  int32_t rows;
};
KVA_HOST_DEVICE constexpr LaneSplit lane_split(int32_t width) {
  int32_t lanes = 4;
  while (lanes * 8 < width) lanes *= 2;
  return {lanes, 32 / lanes};
}

}  // namespace kva
