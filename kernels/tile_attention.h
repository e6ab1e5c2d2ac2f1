// Attention of up to 64 query rows by the tensor cores, after FlashAttention-2 (Dao, arXiv 2307.08691): one
// block of 4 warps takes an item of attention_work.h with `tiles`, each warp 16 of its rows, all of them the
// item's keys in tiles of 64 (or 32). What pages store is brought to a tile, decoded, once for all rows.
// States are those of kernels/attention_warp.h.
//
// What is rounded where, u being 2^-11 for f16 and 2^-8 for bf16:
// - Queries, scaled in f32 and brought to f16's range by a power of two for each row, are sums of two numbers
// of
//   the tiles' type: off by u^2 of each number, and 2^-38 of the row's largest.
// - Rows of f16, bf16 and fp8 are used as they are. Numbers of packed pages are decoded in f32 and rounded to
//   f16: by 2^-11 of each at most. They are clamped to its range.
// - Scores, maxima and sums are f32. Weights, in 4096ths, are rounded to f16 (off by 2^-11 of each, and
// 2^-37),
//   or are sums of two bf16 (2^-16), for the product with the values; not where they are added up.
// - Products are exact; tensor cores add them to f32 sums, each within 2^-23 of the sum of their sizes.
//
// A Team has, beside what tile_pages.h and tile_fill.h ask for, load_matrices(), load_transposed() and
// multiply(), which are PTX's ldmatrix (.x4, also .trans) and mma.sync.m16n8k16 of the warp's lanes, with
// registers as PTX lays them out: of a 16 x 8 result lane l has columns 2 (l % 4) and the next one, of rows
// l / 4 (numbers 0 and 1) and l / 4 + 8 (2 and 3).
#pragma once

#include <cmath>
#include <cstdint>
#include <type_traits>

#include "kernels/attention_math.h"
#include "kernels/attention_tiles.h"
#include "kernels/attention_warp.h"
#include "kernels/tile_fill.h"
#include "kernels/tile_numbers.h"
#include "kernels/tile_pages.h"

namespace kva {

inline constexpr int kWarpRows = 16;
inline constexpr int kTileWarps = kTileThreads / 32;
static_assert(kTileWarps * kWarpRows == kTiledRows);

// Wide heads leave their queries to shared memory, and have less of it for tiles.
template <int kWidth>
struct TileShape {
  static constexpr bool kSharedQueries = kWidth > 128;
  static constexpr int kKeys = kSharedQueries ? 32 : 64;
  static constexpr int kStages = kSharedQueries ? 1 : 2;  // tiles at once: one is filled meanwhile
  static constexpr int kSteps = kWidth / 16;
};

// Blocks that a multiprocessor shall be able to hold at once; more would leave threads too few registers.
KVA_HOST_DEVICE constexpr int tile_blocks(int width, TileKind tiles) {
  return width == 64 && tiles != TileKind::kDecoded ? 3 : 2;
}

// A warp's registers of 16 rows by 16 columns of queries: both parts.
struct QueryStep {
  uint32_t high[4];
  uint32_t low[4];
};

// A block's shared memory.
template <int kWidth>
struct TileMemory {
  using Shape = TileShape<kWidth>;
  alignas(16) uint16_t keys[Shape::kStages][Shape::kKeys * tile_stride(kWidth)];
  alignas(16) uint16_t values[Shape::kStages][Shape::kKeys * tile_stride(kWidth)];
  alignas(16) uint32_t queries[Shape::kSharedQueries ? Shape::kSteps * 2 * kTileThreads * 4 : 4];
  TilePage window[kWindowPages];
  TileSlots<Shape::kKeys> slots[kSlotsInTurn];
};

// The two rows of which a lane has numbers: row(0) and row(1) of the item.
struct LaneRows {
  int32_t first;        // row(0)
  int32_t position[2];  // the last that the row's query sees
  float down[2];        // brings its scores back from where row_scale() put its queries

  KVA_LANE_CODE int32_t row(int half) const { return first + 8 * half; }
};

// A pair of neighbouring numbers of a row of queries, scaled.
KVA_LANE_CODE inline void load_pair(const float* row, int32_t column, float scale, float (&pair)[2]) {
#if defined(__CUDA_ARCH__)
  const float2 of_row = *reinterpret_cast<const float2*>(row + column);
  pair[0] = of_row.x * scale;
  pair[1] = of_row.y * scale;
#else
  pair[0] = row[column] * scale;
  pair[1] = row[column + 1] * scale;
#endif
}

// The largest number of a row of queries, by the quad of lanes that has it; 0 where the item lacks the row.
template <int kWidth, class Team>
KVA_LANE_CODE float largest_of_row(Team& team, const float* row, bool there, float scale) {
  float largest = 0.0f;
  KVA_UNROLL
  for (int step = 0; step < kWidth / 8; ++step) {
    float pair[2] = {};
    if (there) load_pair(row, step * 8 + team.lane() % 4 * 2, scale, pair);
    largest = fmaxf(largest, fmaxf(fabsf(pair[0]), fabsf(pair[1])));
  }
  for (int mask = 2; mask > 0; mask /= 2) largest = fmaxf(largest, team.shuffle_xor(largest, mask));
  return largest;
}

// Brings the warp's queries to `steps`, or to shared memory.
template <int kWidth, class Numbers, class Team>
KVA_LANE_CODE void load_tile_queries(Team& team, const AttentionJob& job, const AttentionItem& item,
                                     LaneRows& rows, QueryStep (&steps)[TileShape<kWidth>::kSteps],
                                     uint32_t* shared) {
  const float* from[2];
  bool there[2];
  float up[2];
  KVA_UNROLL
  for (int half = 0; half < 2; ++half) {
    there[half] = rows.row(half) < item.rows;
    from[half] = item_query(job, item, there[half] ? rows.row(half) : 0);
    const RowScale of = row_scale(largest_of_row<kWidth>(team, from[half], there[half], job.scale));
    up[half] = of.up;
    rows.down[half] = of.down;
  }
  KVA_UNROLL
  for (int step = 0; step < TileShape<kWidth>::kSteps; ++step) {
    QueryStep of_step;
    KVA_UNROLL
    for (int i = 0; i < 4; ++i) {
      const int half = i % 2;
      float pair[2] = {};
      const int32_t column = step * 16 + i / 2 * 8 + team.lane() % 4 * 2;
      if (there[half]) load_pair(from[half], column, job.scale, pair);
      const SplitPair split = split_pair<Numbers>(pair[0] * up[half], pair[1] * up[half]);
      of_step.high[i] = split.high;
      of_step.low[i] = split.low;
    }
    if constexpr (TileShape<kWidth>::kSharedQueries) {
      KVA_UNROLL
      for (int i = 0; i < 4; ++i) {
        shared[((step * 2) * kTileThreads + team.thread()) * 4 + i] = of_step.high[i];
        shared[((step * 2 + 1) * kTileThreads + team.thread()) * 4 + i] = of_step.low[i];
      }
    } else {
      steps[step] = of_step;
    }
  }
}

// One step of the queries that load_tile_queries() left in shared memory; each lane reads what it wrote.
template <class Team>
KVA_LANE_CODE QueryStep shared_step(Team& team, const uint32_t* shared, int step) {
  QueryStep of_step;
  KVA_UNROLL
  for (int i = 0; i < 4; ++i) {
    of_step.high[i] = shared[((step * 2) * kTileThreads + team.thread()) * 4 + i];
    of_step.low[i] = shared[((step * 2 + 1) * kTileThreads + team.thread()) * 4 + i];
  }
  return of_step;
}

// scores = the warp's queries times the tile's keys, brought back to their size.
template <int kWidth, class Numbers, class Team>
KVA_LANE_CODE void score_tile(Team& team, const LaneRows& rows,
                              const QueryStep (&steps)[TileShape<kWidth>::kSteps], const uint32_t* shared,
                              const uint16_t* keys, float (&scores)[TileShape<kWidth>::kKeys / 8][4]) {
  using Shape = TileShape<kWidth>;
  KVA_UNROLL
  for (int n = 0; n < Shape::kKeys / 8; ++n) {
    KVA_UNROLL
    for (int i = 0; i < 4; ++i) scores[n][i] = 0.0f;
  }
  // Matrices of 8 keys by 8 columns: two of columns, for two of keys.
  const int lane = team.lane();
  const uint16_t* at = keys + (lane % 8 + lane / 16 * 8) * tile_stride(kWidth) + lane / 8 % 2 * 8;
  KVA_UNROLL
  for (int step = 0; step < Shape::kSteps; ++step) {
    QueryStep query;
    if constexpr (Shape::kSharedQueries)
      query = shared_step(team, shared, step);
    else
      query = steps[step];
    KVA_UNROLL
    for (int n = 0; n < Shape::kKeys / 16; ++n) {
      uint32_t key[4];
      team.load_matrices(at + n * 16 * tile_stride(kWidth) + step * 16, key);
      team.template multiply<Numbers>(query.high, key[0], key[1], scores[2 * n]);
      team.template multiply<Numbers>(query.high, key[2], key[3], scores[2 * n + 1]);
      team.template multiply<Numbers>(query.low, key[0], key[1], scores[2 * n]);
      team.template multiply<Numbers>(query.low, key[2], key[3], scores[2 * n + 1]);
    }
  }
  KVA_UNROLL
  for (int n = 0; n < Shape::kKeys / 8; ++n) {
    KVA_UNROLL
    for (int i = 0; i < 4; ++i) scores[n][i] *= rows.down[i / 2];
  }
}

// Adds biases, and hides what a row's query does not see.
template <int kKeys, class Team>
KVA_LANE_CODE void mask_tile(Team& team, const LaneRows& rows, const TileSlots<kKeys>& slots,
                             float (&scores)[kKeys / 8][4]) {
  KVA_UNROLL
  for (int n = 0; n < kKeys / 8; ++n) {
    KVA_UNROLL
    for (int i = 0; i < 4; ++i) {
      const int32_t slot = n * 8 + team.lane() % 4 * 2 + i % 2;
      scores[n][i] =
          slots.seen_from[slot] > rows.position[i / 2] ? kNoScore : scores[n][i] + slots.biases[slot];
    }
  }
}

// Weights are 2^12 times what they stand for, so that f16 holds small ones too; o and l with them.
inline constexpr float kWeightShift = 12.0f;
inline constexpr float kWeightUnit = 0x1p-12f;
inline constexpr float kLog2E = 1.44269504f;

// Scores become weights; raises the maxima, and brings sums and o to them.
template <int kWidth, class Team>
KVA_LANE_CODE void soften_tile(Team& team, float (&scores)[TileShape<kWidth>::kKeys / 8][4], float (&max)[2],
                               float (&sum)[2], float (&values)[kWidth / 8][4]) {
  constexpr int kTiles = TileShape<kWidth>::kKeys / 8;
  KVA_UNROLL
  for (int half = 0; half < 2; ++half) {
    float most = max[half];
    KVA_UNROLL
    for (int n = 0; n < kTiles; ++n) most = fmaxf(most, fmaxf(scores[n][2 * half], scores[n][2 * half + 1]));
    most = fmaxf(most, team.shuffle_xor(most, 1));
    most = fmaxf(most, team.shuffle_xor(most, 2));
    const float factor = max[half] == most ? 1.0f : power_of_two((max[half] - most) * kLog2E);
    const float from = most == kNoScore ? 0.0f : most;
    float added = 0.0f;
    KVA_UNROLL
    for (int n = 0; n < kTiles; ++n) {
      KVA_UNROLL
      for (int i = 2 * half; i < 2 * half + 2; ++i) {
        scores[n][i] = power_of_two(fmaf(scores[n][i] - from, kLog2E, kWeightShift));
        added += scores[n][i];
      }
    }
    sum[half] = fmaf(sum[half], factor, added);
    max[half] = most;
    KVA_UNROLL
    for (int n = 0; n < kWidth / 8; ++n) {
      values[n][2 * half] *= factor;
      values[n][2 * half + 1] *= factor;
    }
  }
}

// values += weights times the tile's values. A lane has of the weights' results just what it has to give for
// them as factors.
template <int kWidth, class Numbers, class Team>
KVA_LANE_CODE void add_tile(Team& team, const float (&weights)[TileShape<kWidth>::kKeys / 8][4],
                            const uint16_t* tile, float (&values)[kWidth / 8][4]) {
  const int lane = team.lane();
  const uint16_t* at = tile + lane % 16 * tile_stride(kWidth) + lane / 16 * 8;
  KVA_UNROLL
  for (int step = 0; step < TileShape<kWidth>::kKeys / 16; ++step) {
    uint32_t high[4];
    uint32_t low[4];
    KVA_UNROLL
    for (int i = 0; i < 4; ++i) {
      const float(&from)[4] = weights[2 * step + i / 2];
      if constexpr (Numbers::kSplitsWeights) {
        const SplitPair split = split_pair<Numbers>(from[i % 2 * 2], from[i % 2 * 2 + 1]);
        high[i] = split.high;
        low[i] = split.low;
      } else {
        high[i] = Numbers::pack(from[i % 2 * 2], from[i % 2 * 2 + 1]);
      }
    }
    KVA_UNROLL
    for (int n = 0; n < kWidth / 16; ++n) {
      uint32_t value[4];
      team.load_transposed(at + step * 16 * tile_stride(kWidth) + n * 16, value);
      team.template multiply<Numbers>(high, value[0], value[1], values[2 * n]);
      team.template multiply<Numbers>(high, value[2], value[3], values[2 * n + 1]);
      if constexpr (Numbers::kSplitsWeights) {
        team.template multiply<Numbers>(low, value[0], value[1], values[2 * n]);
        team.template multiply<Numbers>(low, value[2], value[3], values[2 * n + 1]);
      }
    }
  }
}

// Leaves the state of the warp's rows.
template <int kWidth, class Team>
KVA_LANE_CODE void write_tile_states(Team& team, const AttentionJob& job, const AttentionItem& item,
                                     const LaneRows& rows, const float (&max)[2], const float (&sum)[2],
                                     const float (&values)[kWidth / 8][4]) {
  KVA_UNROLL
  for (int half = 0; half < 2; ++half) {
    float all = sum[half] + team.shuffle_xor(sum[half], 1);
    all += team.shuffle_xor(all, 2);
    const int32_t row = rows.row(half);
    if (row >= item.rows) continue;
    float* to = item_sums(job, item) + int64_t{row} * (item.sums < 0 ? kWidth : item.value_width);
    KVA_UNROLL
    for (int n = 0; n < kWidth / 8; ++n) {
      float* pair = to + n * 8 + team.lane() % 4 * 2;
      pair[0] = values[n][2 * half] * kWeightUnit;
      pair[1] = values[n][2 * half + 1] * kWeightUnit;
    }
    if (team.lane() % 4 != 0) continue;
    job.state_max[item.state + row] = max[half];
    job.state_sum[item.state + row] = all * kWeightUnit;
  }
}

// Starts to bring a tile to where it is worked on; await_copies() and a meeting end it.
template <int kWidth, TileKind kTiles, class Team>
KVA_LANE_CODE void fill_tile(Team& team, SideKind key_kind, SideKind value_kind, TileMemory<kWidth>& memory,
                             int32_t tile) {
  constexpr int kKeys = TileShape<kWidth>::kKeys;
  const int32_t stage = tile % TileShape<kWidth>::kStages;
  const TileSlots<kKeys>& slots = memory.slots[tile % kSlotsInTurn];
  if constexpr (kTiles == TileKind::kDecoded) {
    decode_tile<kWidth>(team, key_kind, value_kind, memory.window, slots, memory.keys[stage],
                        memory.values[stage]);
  } else {
    copy_rows<kWidth>(team, TileSide<kKeys>{memory.window, slots, false, memory.keys[stage]});
    copy_rows<kWidth>(team, TileSide<kKeys>{memory.window, slots, true, memory.values[stage]});
  }
}

// One item, by all threads of a block. The kinds are those of its pages.
template <int kWidth, TileKind kTiles, class Team>
KVA_LANE_CODE void attend_tiles(Team& team, const AttentionJob& job, SideKind key_kind, SideKind value_kind,
                                const AttentionItem& item, TileMemory<kWidth>& memory) {
  using Shape = TileShape<kWidth>;
  using Numbers = std::conditional_t<kTiles == TileKind::kBF16, BF16Numbers, F16Numbers>;
  if (item.rows == 0) return;
  const int32_t position = item.position + item.first_row / job.group;
  LaneRows rows{team.warp() * kWarpRows + team.lane() / 4, {}, {}};
  for (int half = 0; half < 2; ++half)
    rows.position[half] = item.position + (item.first_row + rows.row(half)) / job.group;
  QueryStep steps[Shape::kSteps];
  load_tile_queries<kWidth, Numbers>(team, job, item, rows, steps, memory.queries);
  float max[2] = {kNoScore, kNoScore};
  float sum[2] = {};
  float values[kWidth / 8][4] = {};
  TileWalk walk;
  bool there = false;  // the tile, filled or about to be
  KVA_ROLLED
  for (int32_t tile = -1; there || tile < 0; ++tile) {
    // While `tile` is worked on, or before it is, the next one is filled.
    const int32_t first = (tile + 1) * Shape::kKeys;
    const bool next = has_token(walk, item, first);
    if (next)
      place_slots<Shape::kKeys>(team, job, item, position, first, memory.window, walk,
                                memory.slots[(tile + 1) % kSlotsInTurn]);
    team.await_copies();
    team.sync();
    if (Shape::kStages > 1 && next) fill_tile<kWidth, kTiles>(team, key_kind, value_kind, memory, tile + 1);
    if (there && team.warp() * kWarpRows < item.rows) {
      const TileSlots<Shape::kKeys>& slots = memory.slots[tile % kSlotsInTurn];
      float scores[Shape::kKeys / 8][4];
      score_tile<kWidth, Numbers>(team, rows, steps, memory.queries, memory.keys[tile % Shape::kStages],
                                  scores);
      if (is_masked(slots)) mask_tile<Shape::kKeys>(team, rows, slots, scores);
      soften_tile<kWidth>(team, scores, max, sum, values);
      add_tile<kWidth, Numbers>(team, scores, memory.values[tile % Shape::kStages], values);
    }
    if (Shape::kStages == 1 && next) {
      team.sync();
      fill_tile<kWidth, kTiles>(team, key_kind, value_kind, memory, tile + 1);
    }
    there = next;
  }
  write_tile_states<kWidth>(team, job, item, rows, max, sum, values);
}

}  // namespace kva
