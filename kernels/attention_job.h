// What a launch of attention reads and writes. All addresses are the device's (or, in tests, the host's).
#pragma once

#include <cstdint>

#include "kernels/attention_work.h"
#include "kernels/device_page.h"

namespace kva {

// Whose turn it is to bring queries and keys to their positions (kernels/rope.h): both come turned; keys are
// turned within their page, and queries, which come as they are projected, are turned to each page's start;
// or queries come turned, and keys are turned as they are read.
enum class KeyTurning : uint8_t { kNone, kByPage, kByToken };

// A table whose keys' attention is observed, by the number of its merge; and which of them an entry of the
// page list is of, and where its keys' sums begin.
struct MassTable {
  int32_t kv_head = 0;
  int32_t batch_row = 0;
  int32_t position = 0;
  int32_t rows = 0;
  int32_t late_start = 0;   // position of the first query that counts as late
  int32_t near_tokens = 0;  // queries count as near to a key less than so many tokens before them
  // Queries whose positions are the same but for so many bits are mapped together; -1: the table is not.
  int32_t map_shift = -1;
  int32_t map_stride = 0;  // from a key's sum of such queries to that of the next ones
  int64_t map_at = 0;      // a key's first such sum is so far behind its place among sums

  friend bool operator==(const MassTable&, const MassTable&) = default;
};
struct MassPage {
  int32_t table = -1;  // -1: nothing is done
  int32_t first = 0;
  int32_t queries = -1;  // as AttentionItem has it, of the table's first row

  friend bool operator==(const MassPage&, const MassPage&) = default;
};

// What attention observes beside its results, where `pages` is not null: for every key of the page list, its
// weights summed over queries and query heads, in the order of the queries. Of the sums any may be null: it
// is not asked for.
struct MassJob {
  const MassPage* pages = nullptr;  // [count], beside the page list
  int32_t count = 0;
  const MassTable* tables = nullptr;
  int32_t heads = 0;           // query heads of a row
  float* final_max = nullptr;  // [batch rows, heads]: written on the way
  float* final_sum = nullptr;
  float* all = nullptr;
  float* late = nullptr;
  float* near = nullptr;
  float* map = nullptr;

  friend bool operator==(const MassJob&, const MassJob&) = default;
};

struct AttentionJob {
  const AttentionItem* items = nullptr;
  const int32_t* page_list = nullptr;
  const DevicePage* pages = nullptr;
  const SideFormat* formats = nullptr;
  // [batch rows, kv_heads * group * head_dim], turned to their positions but for kByPage.
  const float* queries = nullptr;
  int64_t query_stride = 0;
  int32_t head_dim = 0;  // a multiple of 8, at most 256
  int32_t group = 1;
  float scale = 1.0f;
  int32_t longest_page = 0;  // tokens
  int32_t key_numbers = 0;   // the plan's
  int32_t value_numbers = 0;
  int32_t lifted_key = 0;
  // Of the items: o [states, head_dim], m and l [states].
  float* state_values = nullptr;
  float* state_max = nullptr;
  float* state_sum = nullptr;
  // The plan's, uploaded, and what they name: AttentionPlan::coordinate_queries and coordinate_sums units.
  const AttentionProjection* projections = nullptr;
  const AttentionLift* lifts = nullptr;
  float* coordinate_queries = nullptr;
  float* coordinate_sums = nullptr;
  int32_t widest = 0;  // the plan's
  KeyTurning turning = KeyTurning::kNone;
  int32_t rotary_dim = 0;                      // where keys are turned here
  const float* inverse_frequencies = nullptr;  // [rotary_dim / 2]
  MassJob masses = {};

  friend bool operator==(const AttentionJob&, const AttentionJob&) = default;
};

// Floats of shared memory that one warp needs: the queries [kItemRows, head_dim], the scores of a page
// [kItemRows, longest_page], and what codes of keys and of values stand for.
KVA_HOST_DEVICE constexpr int64_t attention_shared_values(int64_t head_dim, int64_t longest_page,
                                                          int64_t numbers = 0) {
  return kItemRows * (head_dim + longest_page) + numbers;
}

// The same for any item of the plan, and where the scores are in it.
KVA_HOST_DEVICE constexpr int32_t widest_row(const AttentionJob& job) {
  return job.widest > job.head_dim ? job.widest : job.head_dim;
}
KVA_HOST_DEVICE constexpr int64_t attention_shared_values(const AttentionJob& job) {
  return attention_shared_values(widest_row(job), job.longest_page,
                                 job.key_numbers + job.value_numbers + job.lifted_key);
}
KVA_HOST_DEVICE constexpr float* shared_scores(const AttentionJob& job, float* shared) {
  return shared + int64_t{kItemRows} * widest_row(job);
}

// And a key that is brought back from coordinates of its own.
KVA_HOST_DEVICE constexpr float* lifted_room(const AttentionJob& job, float* shared) {
  return shared_scores(job, shared) + int64_t{kItemRows} * job.longest_page + job.key_numbers +
         job.value_numbers;
}

// How many warps share a block, and what it takes of shared memory. Warps of a block have neighbouring items:
// the query rows of one run of pages, so that its bytes come from the device's memory once.
struct AttentionLaunch {
  int32_t blocks = 0;
  int32_t warps = 0;  // of a block
  int64_t shared_bytes = 0;
};
inline constexpr int kMostWarps = 4;
// shared_values: of a warp, or 0. shared_limit: bytes that a block may have, at least one warp's.
AttentionLaunch attention_launch(int32_t items, int64_t shared_values, int64_t shared_limit);

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
