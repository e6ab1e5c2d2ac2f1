// One attention item by one warp: attention_work.h's item to its partial states. The device launches it; the
// host runs it lane by lane in tests (its Warp concept is in kernels/attention_keys.h).
#pragma once

#include <cmath>
#include <cstdint>

#include "kernels/attention_job.h"
#include "kernels/attention_keys.h"
#include "kernels/attention_math.h"
#include "kernels/attention_turned_keys.h"
#include "kernels/attention_values.h"
#include "kernels/side_kinds.h"

namespace kva {

// The item's queries, scaled; rows that it does not have are zeros.
template <class Warp>
KVA_LANE_CODE void load_queries(Warp& warp, const AttentionJob& job, const AttentionItem& item,
                                float* queries) {
  const int32_t dim = job.head_dim;
  for (int r = 0; r < kItemRows; ++r) {
    const int32_t row = item.first_row + r;
    const int32_t token = row / job.group;
    const int32_t head = item.kv_head * job.group + row - token * job.group;
    const float* from = job.queries + (item.batch_row + token) * job.query_stride + int64_t{head} * dim;
    for (int32_t c = warp.lane(); c < dim; c += 32)
      queries[r * dim + c] = r < item.rows ? from[c] * job.scale : 0.0f;
  }
}

// Takes in a page's scores, which become weights: raises m, rescales l and o to it and adds to l.
template <class Warp>
KVA_LANE_CODE void soften_page(Warp& warp, const AttentionJob& job, const AttentionItem& item,
                               const DevicePage& page, float* scores, float (&max)[kItemRows],
                               float (&sum)[kItemRows], ValueSums& values) {
  const int32_t stride = job.longest_page;
  KVA_UNROLL
  for (int r = 0; r < kItemRows; ++r) {
    const int position = item.position + (item.first_row + r) / job.group;
    const int seen = page.has_places ? page.tokens : visible_tokens(position, page.start, page.tokens);
    float most = max[r];
    for (int32_t t = warp.lane(); t < page.tokens; t += 32) {
      float& score = scores[r * stride + t];
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
      const float weight = score_weight(scores[r * stride + t], most);
      scores[r * stride + t] = weight;
      added += weight;
    }
    for (int mask = 16; mask > 0; mask /= 2) added += warp.shuffle_xor(added, mask);
    const float factor = raised_by(max[r], most);
    sum[r] = sum[r] * factor + added;
    max[r] = most;
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

// scores of the page's keys for the item's queries. kTurns: whether job.turning is to be looked at; else it
// is kNone, and the code is short.
template <bool kTurns, class Warp, class KeyKind>
KVA_LANE_CODE void score_page(Warp& warp, const AttentionJob& job, const AttentionItem& item,
                              const DevicePage& page, KeyKind key_kind, float* queries, float* scores) {
  const SidePage keys = key_side(job, page);
  if (kTurns && job.turning == KeyTurning::kByPage) turn_queries(warp, job, item, page.start, queries);
  if (kTurns && job.turning == KeyTurning::kByToken) {
    ScoreTurnedPage<Warp> score{warp, job, page, keys, queries, scores};
    with_kind(key_kind, score);
  } else {
    ScorePage<Warp> score{warp, keys, queries, scores, job.longest_page};
    with_kind(key_kind, score);
  }
}

// shared: attention_shared_values() floats, this warp's own. The item's kinds are SideKinds or KnownKinds.
// kTurns: as score_page().
template <bool kTurns = false, class Warp, class KeyKind, class ValueKind>
KVA_LANE_CODE void attend_item(Warp& warp, const AttentionJob& job, KeyKind key_kind, ValueKind value_kind,
                               const AttentionItem& item, float* shared) {
  if (item.rows == 0) return;
  float* queries = shared;
  float* scores = shared + kItemRows * job.head_dim;
  load_queries(warp, job, item, queries);
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
    score_page<kTurns>(warp, job, item, page, key_kind, queries, scores);
    soften_page(warp, job, item, page, scores, max, sum, values);
    warp.sync();
    AddPage<Warp> add{warp, of_values, scores, job.longest_page, values};
    with_token_kind(value_kind, add);
    warp.sync();
  }
  WriteSums<Warp> write{warp, job.head_dim, item.rows, job.state_values + int64_t{item.state} * job.head_dim,
                        values};
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
  for (int32_t n = 0; n < merge.count(); ++n) {
    const float of_state = state_max[merge.state(n, row)];
    max = of_state > max ? of_state : max;
  }
  float value = 0.0f;
  float sum = 0.0f;
  for (int32_t n = 0; n < merge.count(); ++n) {
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
