// What each key of a page gets of the queries' attention, by one warp a page: the weights are computed again,
// now with every query's final maximum and sum.
#pragma once

#include <cmath>
#include <cstdint>

#include "kernels/attention_general.h"
#include "kernels/attention_job.h"
#include "kernels/attention_math.h"
#include "kernels/attention_warp.h"
#include "kernels/host_device.h"
#include "kernels/side_kinds.h"

namespace kva {

// Adds to a key's sum, or sets it where `first`.
KVA_LANE_CODE inline void put_mass(float* sums, int64_t at, bool first, float mass) {
  if (sums) sums[at] = first ? mass : sums[at] + mass;
}

// The weights of the item's rows, whose scores are there, for the keys that the lane looks after.
template <class Warp>
KVA_LANE_CODE void add_masses(Warp& warp, const AttentionJob& job, const AttentionItem& item,
                              const MassTable& table, const DevicePage& page, int64_t first_token,
                              const float* scores) {
  const MassJob& masses = job.masses;
  for (int32_t t = warp.lane(); t < page.tokens; t += 32) {
    const int32_t of_key = position_of(page, t);
    const float bias = page.biases ? page.biases[t] : 0.0f;
    float all = 0.0f, late = 0.0f, near = 0.0f;
    for (int r = 0; r < item.rows; ++r) {
      const int32_t row = item.first_row + r;
      const int32_t token = row / job.group;
      const int32_t position = item.position + token;
      const int seen = page.has_places ? page.tokens : visible_tokens(position, page.start, page.tokens);
      const int64_t query =
          (item.batch_row + token) * masses.heads + item.kv_head * job.group + row - token * job.group;
      float weight = 0.0f;
      if (t < seen && masses.final_sum[query] != 0.0f)
        weight = score_weight(scores[r * job.longest_page + t] + bias, masses.final_max[query]) /
                 masses.final_sum[query];
      if (table.map_shift >= 0) {
        const int32_t block = position >> table.map_shift;
        const bool first = row == token * job.group && (row == 0 || block << table.map_shift == position);
        const int64_t behind = int64_t{block - (table.position >> table.map_shift)} * table.map_stride;
        put_mass(masses.map, table.map_at + behind + first_token + t, first, weight);
      }
      all += weight;
      if (position >= table.late_start) late += weight;
      if (position - of_key < table.near_tokens) near += weight;
    }
    const bool first = item.first_row == 0;
    put_mass(masses.all, first_token + t, first, all);
    put_mass(masses.late, first_token + t, first, late);
    put_mass(masses.near, first_token + t, first, near);
  }
}

// Entry `entry` of the plan's page list. shared: attention_shared_values() floats, this warp's own.
template <class Warp>
KVA_LANE_CODE void observe_page(Warp& warp, const AttentionJob& job, int32_t entry, float* shared) {
  const MassPage of = job.masses.pages[entry];
  if (of.table < 0) return;
  const MassTable& table = job.masses.tables[of.table];
  const DevicePage& page = job.pages[job.page_list[entry]];
  const SideFormat& format = job.formats[page.key_format];
  float* scores = shared_scores(job, shared);
  NumberRoom numbers{scores + kItemRows * job.longest_page, false};
  for (int32_t row = 0; row < table.rows; row += kItemRows) {
    const AttentionItem item{.kv_head = table.kv_head,
                             .batch_row = table.batch_row,
                             .position = table.position,
                             .first_row = row,
                             .rows = table.rows - row < kItemRows ? table.rows - row : kItemRows,
                             .queries = of.queries,
                             .key_width = static_cast<uint16_t>(coordinate_stride(format.width))};
    load_general_queries(warp, job, item, format, shared);
    score_general_page(warp, job, item, page, numbers, shared, scores);
    add_masses(warp, job, item, table, page, of.first, scores);
    warp.sync();
  }
}

// Row `row` of a table's queries, once its states are there.
KVA_HOST_DEVICE inline void put_finals(const AttentionMerge& merge, int32_t row, const AttentionJob& job) {
  float max = kNoScore;
  for (int32_t n = 0; n < merge.partials; ++n) {
    const float of_state = job.state_max[merge.state(n, row)];
    max = of_state > max ? of_state : max;
  }
  float sum = 0.0f;
  for (int32_t n = 0; n < merge.partials; ++n) {
    const int64_t state = merge.state(n, row);
    sum = fmaf(state_share(job.state_max[state], max), job.state_sum[state], sum);
  }
  const int64_t query = result_at(merge, row, job.group, 1, job.masses.heads);
  job.masses.final_max[query] = max;
  job.masses.final_sum[query] = sum;
}

}  // namespace kva
