// One attention item by one warp: attention_work.h's item to its partial states. The device launches it; the
// host runs it lane by lane in tests (its Warp concept is in kernels/attention_keys.h).
#pragma once

#include <cmath>
#include <cstdint>

#include "kernels/attention_job.h"
#include "kernels/attention_keys.h"
#include "kernels/attention_math.h"
#include "kernels/attention_parts.h"
#include "kernels/attention_turned_keys.h"
#include "kernels/attention_values.h"
#include "kernels/side_kinds.h"

namespace kva {

// Where query row r of the item is: as it came, or in the coordinates in which its keys are read.
KVA_LANE_CODE inline const float* item_query(const AttentionJob& job, const AttentionItem& item, int r) {
  const int32_t row = item.first_row + r;
  if (item.queries >= 0)
    return job.coordinate_queries + int64_t{item.queries} * kUnit + int64_t{row} * item.key_width;
  const int32_t token = row / job.group;
  const int32_t head = item.kv_head * job.group + row - token * job.group;
  return job.queries + (item.batch_row + token) * job.query_stride + int64_t{head} * job.head_dim;
}

// Where the item leaves its sums: rows of numbers of a value.
KVA_LANE_CODE inline float* item_sums(const AttentionJob& job, const AttentionItem& item) {
  return item.sums < 0 ? job.state_values + int64_t{item.state} * job.head_dim
                       : job.coordinate_sums + int64_t{item.sums} * kUnit;
}

// The item's queries of `width` numbers, scaled; rows that it does not have are zeros.
template <class Warp>
KVA_LANE_CODE void load_queries(Warp& warp, const AttentionJob& job, const AttentionItem& item, int32_t width,
                                float* queries) {
  for (int r = 0; r < kItemRows; ++r) {
    const float* from = item_query(job, item, r);
    for (int32_t c = warp.lane(); c < width; c += 32)
      queries[r * width + c] = r < item.rows ? from[c] * job.scale : 0.0f;
  }
}

// Takes in the scores of a page for row r, which become weights: raises its m, rescales its l to it and adds
// to l. Returns the factor for its o.
template <class Warp>
KVA_LANE_CODE float soften_row(Warp& warp, const AttentionJob& job, const AttentionItem& item,
                               const DevicePage& page, int r, float* scores, float& max, float& sum) {
  const int position = item.position + (item.first_row + r) / job.group;
  const int seen = page.has_places ? page.tokens : visible_tokens(position, page.start, page.tokens);
  float most = max;
  for (int32_t t = warp.lane(); t < page.tokens; t += 32) {
    float& score = scores[t];
    if (page.biases) score += page.biases[t];
    if (t >= seen) score = kNoScore;
    most = score > most ? score : most;
  }
  for (int mask = 16; mask > 0; mask /= 2) {
    const float other = warp.shuffle_xor(most, mask);
    most = other > most ? other : most;
  }
  float added = 0.0f;
  for (int32_t t = warp.lane(); t < page.tokens; t += 32) {
    const float weight = score_weight(scores[t], most);
    scores[t] = weight;
    added += weight;
  }
  for (int mask = 16; mask > 0; mask /= 2) added += warp.shuffle_xor(added, mask);
  const float factor = raised_by(max, most);
  sum = sum * factor + added;
  max = most;
  return factor;
}

// The same for all rows of the item, and their o.
template <class Warp>
KVA_LANE_CODE void soften_page(Warp& warp, const AttentionJob& job, const AttentionItem& item,
                               const DevicePage& page, float* scores, float (&max)[kItemRows],
                               float (&sum)[kItemRows], ValueSums& values) {
  KVA_UNROLL
  for (int r = 0; r < kItemRows; ++r) {
    const float factor = soften_row(warp, job, item, page, r, scores + r * job.longest_page, max[r], sum[r]);
    KVA_UNROLL
    for (int j = 0; j < kUnit; ++j) values[r][j] *= factor;
  }
}

KVA_LANE_CODE inline SidePage key_side(const AttentionJob& job, const DevicePage& page) {
  return {job.formats + page.key_format, reinterpret_cast<const uint8_t*>(page.keys), page.tokens};
}
KVA_LANE_CODE inline SidePage value_side(const AttentionJob& job, const DevicePage& page) {
  return {job.formats + page.value_format, reinterpret_cast<const uint8_t*>(page.values), page.tokens};
}

// What a side's codes stand for, in shared memory: `room` has space for that of any page of the launch.
struct NumberRoom {
  float* room;
  bool products;               // whether products of the queries, which stay the same, are worth their time
  const void* held = nullptr;  // whose numbers are there
};

// Brings it there, where it is not yet, and tells the page. queries: null for values.
template <class Warp>
KVA_LANE_CODE void take_numbers(Warp& warp, NumberRoom& numbers, SidePage& page, const float* queries) {
  const bool centroids = page.format->kind == SideKind::kCentroids;
  if (centroids && (!queries || !numbers.products || key_numbers(*page.format) == 0)) return;
  const void* wanted = page.format->shared[kSharedNumbers];
  page.levels = numbers.room;
  if (numbers.held == wanted) return;
  warp.sync();  // some lanes may still read those of the page before
  if (centroids)
    tabulate_centroids(warp, page, queries, numbers.room);
  else
    for (int32_t i = warp.lane(); i < level_count(page.format->kind); i += 32)
      numbers.room[i] = f16_value(static_cast<const uint16_t*>(wanted)[i]);
  warp.sync();
  numbers.held = wanted;
}

// scores of `keys`, as stored for the page, for the item's queries. kTurns: whether job.turning is to be
// looked at; else it is kNone. kParts: whether sides may have parts. Without either the code is short.
template <bool kTurns, bool kParts, class Warp, class KeyKind>
KVA_LANE_CODE void score_side(Warp& warp, const AttentionJob& job, const AttentionItem& item,
                              const DevicePage& page, SidePage keys, KeyKind key_kind, NumberRoom& numbers,
                              float* queries, float* scores) {
  const int32_t stride = job.longest_page;
  if (kTurns && job.turning == KeyTurning::kByPage) turn_queries(warp, job, item, page.start, queries);
  if (shares_numbers(key_kind)) take_numbers(warp, numbers, keys, queries);
  if (kTurns && job.turning == KeyTurning::kByToken) {
    ScoreTurnedPage<kParts, Warp> turned{warp, job, page, keys, queries, scores};
    if constexpr (kParts)
      turned.score(AnyKind{keys.format->kind});
    else
      with_kind(key_kind, turned);
  } else if (kParts && has_parts(*keys.format)) {
    score_front(warp, keys, queries, scores, stride);
    const SidePage codes = coded_part(keys);
    ScorePage<Warp> score{warp, codes, queries, scores + keys.format->front, stride};
    with_kind(key_kind, score);
    score_low_rank(warp, keys, queries, scores, stride);
  } else {
    ScorePage<Warp> score{warp, keys, queries, scores, stride};
    with_kind(key_kind, score);
  }
}

// Adds a page of values. weights may change.
template <bool kParts, class Warp, class ValueKind>
KVA_LANE_CODE void add_side(Warp& warp, SidePage values, ValueKind kind, NumberRoom& numbers, float* weights,
                            int32_t stride, ValueSums& sums) {
  if (shares_numbers(kind)) take_numbers(warp, numbers, values, nullptr);
  if (kParts && has_parts(*values.format)) {
    add_parts(warp, values, kind, weights, stride, sums);
    weights += values.format->front;
    values = coded_part(values);
  }
  AddPage<Warp> add{warp, values, weights, stride, sums};
  with_token_kind(kind, add);
}

// shared: attention_shared_values() floats, this warp's own. The item's kinds are SideKinds or KnownKinds,
// or, in tests, AnyKinds. kTurns: as score_side().
template <bool kTurns = false, class Warp, class KeyKind, class ValueKind>
KVA_LANE_CODE void attend_item(Warp& warp, const AttentionJob& job, KeyKind key_kind, ValueKind value_kind,
                               const AttentionItem& item, float* shared) {
  if (item.rows == 0) return;
  float* queries = shared;
  float* scores = shared + kItemRows * job.head_dim;
  NumberRoom key_room{scores + kItemRows * job.longest_page, job.turning == KeyTurning::kNone};
  NumberRoom value_room{key_room.room + job.key_numbers, false};
  load_queries(warp, job, item, job.head_dim, queries);
  warp.sync();
  float max[kItemRows];
  float sum[kItemRows] = {};
  ValueSums values = {};
  KVA_UNROLL
  for (int r = 0; r < kItemRows; ++r) max[r] = kNoScore;
  for (int32_t i = 0; i < item.page_count; ++i) {
    const DevicePage& page = job.pages[job.page_list[item.first_page + i]];
    const SidePage of_values = value_side(job, page);
    if (i + 1 < item.page_count) {
      const DevicePage& next = job.pages[job.page_list[item.first_page + i + 1]];
      prefetch_side(key_side(job, next), warp.lane());
      prefetch_side(value_side(job, next), warp.lane());
    }
    score_side<kTurns, false>(warp, job, item, page, key_side(job, page), key_kind, key_room, queries,
                              scores);
    soften_page(warp, job, item, page, scores, max, sum, values);
    warp.sync();
    add_side<false>(warp, of_values, value_kind, value_room, scores, job.longest_page, values);
    warp.sync();
  }
  WriteSums<Warp> write{warp, job.head_dim, item.rows, item_sums(job, item), values};
  with_token_kind(value_kind, write);
  KVA_UNROLL
  for (int r = 0; r < kItemRows; ++r) {
    if (warp.lane() != 0 || r >= item.rows) continue;
    job.state_max[item.state + r] = max[r];
    job.state_sum[item.state + r] = sum[r];
  }
}

// Channel c of a row of attention's result: the table's states, merged in order.
KVA_HOST_DEVICE inline float merged_value(const AttentionMerge& merge, int32_t row, int32_t c,
                                          int32_t head_dim, const float* state_values, const float* state_max,
                                          const float* state_sum) {
  float max = kNoScore;
  for (int32_t n = 0; n < merge.partials; ++n) {
    const float of_state = state_max[merge.state(n, row)];
    max = of_state > max ? of_state : max;
  }
  float value = 0.0f;
  float sum = 0.0f;
  for (int32_t n = 0; n < merge.partials; ++n) {
    const int64_t state = merge.state(n, row);
    const float share = state_share(state_max[state], max);
    sum = fmaf(share, state_sum[state], sum);
    value = fmaf(share, state_values[state * head_dim + c], value);
  }
  return finished(value, sum);
}

// Where row `row` of a table has its result: the first channel of its head, in rows of `stride` numbers.
KVA_HOST_DEVICE inline int64_t result_at(const AttentionMerge& merge, int32_t row, int32_t group,
                                         int32_t head_dim, int64_t stride) {
  const int32_t token = row / group;
  const int32_t head = merge.kv_head * group + row - token * group;
  return (merge.batch_row + token) * stride + int64_t{head} * head_dim;
}

}  // namespace kva
