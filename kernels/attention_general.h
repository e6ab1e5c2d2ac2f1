// Attention items of a general bucket, by one warp each: sides that scale a base (SideKind::kScaledBase), and
// coefficients on a basis, of which a token may have any number.
#pragma once

#include <cstdint>

#include "kernels/attention_warp.h"
#include "kernels/encode_lanes.h"

namespace kva {

static_assert(kItemRows == 4, "sum_four() sums the rows of an item");

KVA_LANE_CODE inline SidePage base_of(const AttentionJob& job, const SidePage& side, const std::byte* base) {
  return {job.formats + side.format->base, reinterpret_cast<const uint8_t*>(base), side.tokens};
}

// Rows that a side keeps beside its base.
struct RetainedRows {
  KVA_LANE_CODE explicit RetainedRows(const SidePage& side)
      : count(side.format->retained),
        width(side.format->width),
        tokens(reinterpret_cast<const uint16_t*>(side.payload + side.format->retained_at)),
        numbers(reinterpret_cast<const uint16_t*>(side.payload + side.format->retained_rows_at)) {}
  KVA_LANE_CODE float number(int32_t i, int32_t channel) const {
    return f16_value(numbers[i * width + channel]);
  }

  int32_t count;
  int32_t width;
  const uint16_t* tokens;
  const uint16_t* numbers;
};

// The sums of the item's rows become scores of one token.
template <class Warp>
KVA_LANE_CODE void put_scores(Warp& warp, const float (&sums)[kItemRows], float factor, float* scores,
                              int32_t stride) {
  int which;
  const float sum = sum_four(warp, sums, 32, &which);
  if (warp.lane() % 8 == 0) scores[int64_t{which} * stride] = sum * factor;
}

// The scores of a side's base become its own.
template <class Warp>
KVA_LANE_CODE void score_scaled(Warp& warp, const AttentionJob& job, const DevicePage& page,
                                const SidePage& keys, const float* queries, float* scores) {
  const int32_t stride = job.longest_page;
  for (int32_t token = warp.lane(); token < page.tokens; token += 32) {
    const float length = f16_at(keys.payload, keys.format->factors_at, token);
    for (int r = 0; r < kItemRows; ++r) scores[r * stride + token] *= length;
  }
  warp.sync();
  const RetainedRows rows(keys);
  const ScoreTurnedPage<false, Warp> turned{warp, job, page, keys, queries, scores};
  for (int32_t i = 0; i < rows.count; ++i) {
    const int32_t token = rows.tokens[i];
    const int32_t position = turn_of(page, token);
    float sums[kItemRows] = {};
    for (int32_t c = warp.lane(); c < rows.width; c += 32) {
      const float number = rows.number(i, c);
      if (job.turning == KeyTurning::kByToken) {
        turned.add(sums, position, c, number);
      } else {
        for (int r = 0; r < kItemRows; ++r) sums[r] = fmaf(queries[r * rows.width + c], number, sums[r]);
      }
    }
    put_scores(warp, sums, 1.0f, scores + token, stride);
  }
  warp.sync();
}

// Scores of rows that are not read by units, from the queries where they lie.
template <class Warp>
struct ScoreOddPage {
  Warp& warp;
  const AttentionJob& job;
  const AttentionItem& item;
  const SidePage& keys;
  float* scores;

  KVA_LANE_CODE void run() {
    const float* query[kItemRows];
    for (int r = 0; r < kItemRows; ++r) query[r] = item_query(job, item, r < item.rows ? r : 0);
    for (int32_t token = 0; token < keys.tokens; ++token) {
      float sums[kItemRows] = {};
      const auto add = [&](int32_t channel, float number) {
        for (int r = 0; r < kItemRows; ++r) sums[r] = fmaf(query[r][channel], number, sums[r]);
      };
      for (int32_t c = warp.lane(); c < keys.format->width; c += 32) add(c, any_number(keys, token, c));
      float factor = job.scale;
      if (is_packed(keys.format->kind)) {
        for_kept_of_token(keys, token, warp.lane(), add);
        if (keys.format->factors_at >= 0) factor *= f16_at(keys.payload, keys.format->factors_at, token);
      }
      put_scores(warp, sums, factor, scores + token, job.longest_page);
    }
    warp.sync();
  }
};

// Whether keys are brought back from coordinates of their own one by one: queries that are turned by each
// page's or token's position cannot be brought there once for all.
KVA_LANE_CODE inline bool lifts_keys(const AttentionJob& job, const SideFormat& keys) {
  return job.turning != KeyTurning::kNone && (keys.hadamard || keys.on_basis);
}

// Scores of such keys. room: job.lifted_key floats, shared.
template <class Warp>
struct ScoreLiftedPage {
  Warp& warp;
  const AttentionJob& job;
  const DevicePage& page;
  const SidePage& keys;
  const float* queries;
  float* scores;
  float* room;

  // The token's own numbers, but for the factor.
  KVA_LANE_CODE void take(const ScoreTurnedPage<true, Warp>& turned, const SidePage& codes, int32_t token) {
    const SideFormat& format = *keys.format;
    for (int32_t i = warp.lane(); i < format.width; i += 32)
      room[i] = turned.number(AnyKind{format.kind}, codes, token, i);
    warp.sync();
    if (is_packed(format.kind) && token >= format.front)
      for_kept_of_token(codes, token - format.front, warp.lane(),
                        [&](int32_t channel, float beyond_code) { room[channel] += beyond_code; });
    warp.sync();
    if (format.hadamard) hadamard_row(warp, room, format.width, room + coordinate_stride(format.width));
    warp.sync();
  }

  KVA_LANE_CODE void run() {
    const SideFormat& format = *keys.format;
    const SidePage codes = coded_part(keys);
    const ScoreTurnedPage<true, Warp> turned{warp, job, page, keys, queries, scores};
    const auto* basis = reinterpret_cast<const uint16_t*>(page.key_base);
    for (int32_t token = 0; token < keys.tokens; ++token) {
      take(turned, codes, token);
      const int32_t position = turn_of(page, token);
      float sums[kItemRows] = {};
      for (int32_t c = warp.lane(); c < job.head_dim; c += 32) {
        float number = format.on_basis ? 0.0f : room[c];
        for (int32_t i = 0; format.on_basis && i < format.width; ++i)
          number = fmaf(room[i], f16_value(basis[int64_t{i} * job.head_dim + c]), number);
        if (job.turning == KeyTurning::kByToken) {
          turned.add(sums, position, c, number);
        } else {
          for (int r = 0; r < kItemRows; ++r) sums[r] = fmaf(queries[r * job.head_dim + c], number, sums[r]);
        }
      }
      const bool has_factor = is_packed(format.kind) && format.factors_at >= 0 && token >= format.front;
      const float factor = has_factor ? f16_at(keys.payload, format.factors_at, token - format.front) : 1.0f;
      put_scores(warp, sums, factor, scores + token, job.longest_page);
      warp.sync();
    }
  }
};

// The item's queries for keys as `format` has them; those that are not read by units stay where they are.
template <class Warp>
KVA_LANE_CODE void load_general_queries(Warp& warp, const AttentionJob& job, const AttentionItem& item,
                                        const SideFormat& format, float* queries) {
  const int32_t width = lifts_keys(job, format) ? job.head_dim : format.width;
  if (reads_units(width)) load_queries(warp, job, item, width, queries);
  warp.sync();
}

template <class Warp>
KVA_LANE_CODE void score_general_page(Warp& warp, const AttentionJob& job, const AttentionItem& item,
                                      const DevicePage& page, NumberRoom& numbers, float* queries,
                                      float* scores) {
  SidePage keys = key_side(job, page);
  const AnyKind kind{keys.format->kind};
  if (keys.format->kind == SideKind::kScaledBase) {
    const SidePage base = base_of(job, keys, page.key_base);
    score_side<true, true>(warp, job, item, page, base, AnyKind{base.format->kind}, numbers, queries, scores);
    score_scaled(warp, job, page, keys, queries, scores);
  } else if (lifts_keys(job, *keys.format)) {
    if (job.turning == KeyTurning::kByPage) turn_queries(warp, job, item, page.start, queries);
    if (shares_numbers(kind)) take_numbers(warp, numbers, keys, nullptr);
    ScoreLiftedPage<Warp> score{warp, job, page, keys, queries, scores, lifted_room(job, queries)};
    score.run();
  } else if (reads_units(keys.format->width)) {
    score_side<true, true>(warp, job, item, page, keys, kind, numbers, queries, scores);
  } else {
    if (shares_numbers(kind)) take_numbers(warp, numbers, keys, nullptr);
    ScoreOddPage<Warp> score{warp, job, item, keys, scores};
    score.run();
  }
}

// Adds one page whose values scale a base; lanes have the channels that the base's kind gives them.
template <class Warp>
struct AddScaledPage {
  Warp& warp;
  const SidePage& side;
  const SidePage& base;
  float* weights;
  int32_t stride;
  ValueSums& sums;

  template <SideKind kind>
  KVA_LANE_CODE void run() {
    const RetainedRows rows(side);
    const UnitPlaces places = value_places<kind>(rows.width, warp.lane());
    if (warp.lane() < lane_split(rows.width).lanes && warp.lane() * kUnit < rows.width)
      for (int32_t i = 0; i < rows.count; ++i)
        for (int j = 0; j < kUnit; ++j) {
          const float number = rows.number(i, places.place(j));
          for (int r = 0; r < kItemRows; ++r)
            sums[r][j] = fmaf(weights[r * stride + rows.tokens[i]], number, sums[r][j]);
        }
    warp.sync();
    scale_weights(warp, side, weights, stride);
    for (int32_t i = warp.lane(); i < rows.count; i += 32)
      for (int r = 0; r < kItemRows; ++r) weights[r * stride + rows.tokens[i]] = 0.0f;
    warp.sync();
    add_page_of<kind>(warp, base, weights, stride, sums);
  }
};

// Adds one page of rows that are not read by units. The sums are where the item leaves them: each lane has
// every 32nd channel.
template <class Warp>
struct AddOddPage {
  Warp& warp;
  const SidePage& page;
  float* weights;
  int32_t stride;
  const AttentionItem& item;
  const float (&factors)[kItemRows];  // for what is summed already
  bool first;                         // nothing is
  float* sums;

  KVA_LANE_CODE void run() {
    const bool packed = is_packed(page.format->kind);
    if (packed && page.format->factors_at >= 0) scale_weights(warp, page, weights, stride);
    const auto add = [&](float(&of_channel)[kItemRows], int32_t token, float number) {
      for (int r = 0; r < kItemRows; ++r)
        of_channel[r] = fmaf(weights[r * stride + token], number, of_channel[r]);
    };
    for (int32_t c = warp.lane(); c < page.format->width; c += 32) {
      float of_channel[kItemRows] = {};
      for (int r = 0; r < item.rows; ++r)
        if (!first) of_channel[r] = sums[r * item.value_width + c] * factors[r];
      for (int32_t token = 0; token < page.tokens; ++token)
        add(of_channel, token, any_number(page, token, c));
      for (int r = 0; r < item.rows; ++r) sums[r * item.value_width + c] = of_channel[r];
    }
    if (packed)
      for_kept(page, [&](int32_t token, int32_t channel, float number) {
        if (channel % 32 != warp.lane()) return;
        const float beyond_code = number - left_code_value(page, token, channel);
        for (int r = 0; r < item.rows; ++r)
          sums[r * item.value_width + channel] += weights[r * stride + token] * beyond_code;
      });
  }
};

// Pages whose values are read by units: their sums stay with the lanes until the end of the item.
template <class Warp>
KVA_LANE_CODE void add_general_page(Warp& warp, const AttentionJob& job, const DevicePage& page,
                                    NumberRoom& numbers, float* weights, ValueSums& sums) {
  const SidePage side = value_side(job, page);
  if (side.format->kind == SideKind::kScaledBase) {
    SidePage base = base_of(job, side, page.value_base);
    const AnyKind kind{base.format->kind};
    if (shares_numbers(kind)) take_numbers(warp, numbers, base, nullptr);
    AddScaledPage<Warp> add{warp, side, base, weights, job.longest_page, sums};
    with_token_kind(kind, add);
  } else {
    add_side<true>(warp, side, AnyKind{side.format->kind}, numbers, weights, job.longest_page, sums);
  }
}

// shared: attention_shared_values(job) floats, this warp's own.
template <class Warp>
KVA_LANE_CODE void attend_general_item(Warp& warp, const AttentionJob& job, const AttentionItem& item,
                                       float* shared) {
  if (item.rows == 0) return;
  float* sums = item_sums(job, item);
  float max[kItemRows];
  float sum[kItemRows] = {};
  for (int r = 0; r < kItemRows; ++r) max[r] = kNoScore;
  if (item.page_count == 0) {
    for (int32_t i = warp.lane(); i < item.rows * item.value_width; i += 32) sums[i] = 0.0f;
  } else {
    float* scores = shared_scores(job, shared);
    NumberRoom key_room{scores + int64_t{kItemRows} * job.longest_page, job.turning == KeyTurning::kNone};
    NumberRoom value_room{key_room.room + job.key_numbers, false};
    const DevicePage& like = job.pages[job.page_list[item.first_page]];
    const SideFormat& of_values = job.formats[like.value_format];
    const bool by_units = reads_units(of_values.width);
    load_general_queries(warp, job, item, job.formats[like.key_format], shared);
    ValueSums values = {};
    for (int32_t i = 0; i < item.page_count; ++i) {
      const DevicePage& page = job.pages[job.page_list[item.first_page + i]];
      score_general_page(warp, job, item, page, key_room, shared, scores);
      float factors[kItemRows];
      for (int r = 0; r < kItemRows; ++r)
        factors[r] =
            soften_row(warp, job, item, page, r, scores + int64_t{r} * job.longest_page, max[r], sum[r]);
      warp.sync();
      if (by_units) {
        for (int r = 0; r < kItemRows; ++r)
          for (int j = 0; j < kUnit; ++j) values[r][j] *= factors[r];
        add_general_page(warp, job, page, value_room, scores, values);
      } else {
        SidePage side = value_side(job, page);
        if (shares_numbers(AnyKind{side.format->kind})) take_numbers(warp, value_room, side, nullptr);
        AddOddPage<Warp> add{warp, side, scores, job.longest_page, item, factors, i == 0, sums};
        add.run();
      }
      warp.sync();
    }
    if (by_units) {
      const SideKind kind =
          of_values.kind == SideKind::kScaledBase ? job.formats[of_values.base].kind : of_values.kind;
      WriteSums<Warp> write{warp, of_values.width, item.rows, sums, values};
      with_token_kind(AnyKind{kind}, write);
    }
  }
  for (int r = 0; r < item.rows; ++r) {
    if (warp.lane() != 0) continue;
    job.state_max[item.state + r] = max[r];
    job.state_sum[item.state + r] = sum[r];
  }
}

}  // namespace kva
