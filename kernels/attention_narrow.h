// Attention of a few query rows by one warp on tensor cores: the steps of decoding, which read every page
// once and would spend more time on taking codes apart and multiplying than on reading them.
//
// A product's 16 rows are tokens (scores) or channels (sums of values), its 8 columns are the item's query
// rows, so that what pages store goes from memory to registers and from there into the product. Scores of 64
// tokens, whatever pages they are of, become weights together.
//
// Nothing is rounded that f32 would keep: codes are whole numbers of f16, their scales go into scores,
// queries and weights; rows of f16 and bf16 are used as they are, fp8 becomes f16; queries and weights are
// sums of 16-bit numbers (TensorTerms), scaled by powers of two to where f16 has 22 bits for them.
#pragma once

#include <cmath>
#include <cstdint>
#include <type_traits>

#include "kernels/attention_warp.h"
#include "kernels/narrow_keys.h"
#include "kernels/narrow_lane.h"
#include "kernels/narrow_values.h"

namespace kva {

inline constexpr int kNarrowSlots = kNarrowTokens / kSlotTokens;  // whose scores become weights together

// A warp's shared memory.
struct NarrowMemory {
  NarrowScores scores[kNarrowTokens];
  int32_t tokens[kNarrowTokens];  // of their page; of those that there are not, another
  int32_t pages[kNarrowSlots];    // places in the page list
};

KVA_LANE_CODE inline const DevicePage& listed_page(const AttentionJob& job, int32_t listed) {
  return job.pages[job.page_list[listed]];
}

// The item's pages on their way through the slots.
template <SideKind kind, int kWidth>
class NarrowPages {
 public:
  using Keys = NarrowKeys<kind, kWidth>;

  template <class Warp>
  KVA_LANE_CODE NarrowPages(Warp& warp, const AttentionJob& job, const AttentionItem& item,
                            const NarrowLane& at)
      : keys_(warp, job, item, at), ahead_(1 + (kNarrowSlots * kSlotTokens - 1) / job.longest_page) {
    KVA_UNROLL
    for (int i = 0; i < 2; ++i)
      position_[i] = item.position + (item.first_row + 2 * at.quarter + i) / job.group;
    for (int32_t p = 1; p < ahead_; ++p) prefetch(warp, job, item, p);
  }

  KVA_LANE_CODE bool done(const AttentionItem& item) const { return page_at_ >= item.page_count; }

  // Scores of the next pages as far as there is room: masked, and with their biases. Returns how many slots.
  template <class Warp>
  KVA_LANE_CODE int32_t score(Warp& warp, const AttentionJob& job, const AttentionItem& item,
                              const NarrowLane& at, NarrowMemory& memory) {
    int32_t filled = 0;
    while (!done(item)) {
      const int32_t listed = item.first_page + page_at_;
      const DevicePage& page = listed_page(job, listed);
      const SidePage side = key_side(job, page);
      const int32_t step = Keys::at_once(side), slots = Keys::slots(side);
      if (slot_at_ == 0) prefetch(warp, job, item, page_at_ + ahead_);
      const Sight sight(page, position_);
      for (; slot_at_ < slots && filled + step <= kNarrowSlots; slot_at_ += step, filled += step) {
        if (warp.lane() < step) memory.pages[filled + warp.lane()] = listed;
        keys_.score(warp, job, item, at, side, slot_at_, [&](TokenScores of) {
          of.row += filled * kSlotTokens;
          put(at, sight, of, memory);
        });
      }
      if (slot_at_ < slots) break;
      slot_at_ = 0;
      ++page_at_;
    }
    return filled;
  }

 private:
  // What a lane's columns see of a page.
  struct Sight {
    KVA_LANE_CODE Sight(const DevicePage& page, const int32_t (&position)[2]) : biases(page.biases) {
      KVA_UNROLL
      for (int i = 0; i < 2; ++i)
        tokens[i] = page.has_places ? page.tokens : visible_tokens(position[i], page.start, page.tokens);
    }
    const float* biases;
    int32_t tokens[2];
  };

  template <class Warp>
  KVA_LANE_CODE static void prefetch(Warp& warp, const AttentionJob& job, const AttentionItem& item,
                                     int32_t page_at) {
    if (page_at >= item.page_count) return;
    const DevicePage& page = listed_page(job, item.first_page + page_at);
    prefetch_side(key_side(job, page), warp.lane());
    prefetch_side(value_side(job, page), warp.lane());
  }

  KVA_LANE_CODE static void put(const NarrowLane& at, const Sight& sight, const TokenScores& of,
                                NarrowMemory& memory) {
    const bool is_token = of.token >= 0;
    const float bias = is_token && sight.biases ? sight.biases[of.token] : 0.0f;
    float* to = memory.scores[of.row] + 2 * at.quarter;
    to[0] = is_token && of.token < sight.tokens[0] ? of.scores.first + bias : kNoScore;
    to[1] = is_token && of.token < sight.tokens[1] ? of.scores.second + bias : kNoScore;
    if (at.quarter == 0) memory.tokens[of.row] = is_token ? of.token : 0;
  }

  Keys keys_;
  int32_t ahead_;        // pages are asked for so many before they are read
  int32_t position_[2];  // of the columns' queries
  int32_t page_at_ = 0;
  int32_t slot_at_ = 0;
};

// Calls body(page, first token, tokens, their first row) for what the slots have of each page.
template <class Body>
KVA_LANE_CODE void for_parts_of_pages(const AttentionJob& job, const NarrowMemory& memory, int32_t slots,
                                      const Body& body) {
  int32_t end = 0;
  for (int32_t slot = 0; slot < slots; slot = end) {
    while (end < slots && memory.pages[end] == memory.pages[slot]) ++end;
    const DevicePage& page = listed_page(job, memory.pages[slot]);
    const int32_t row = slot * kSlotTokens, first = memory.tokens[row];
    const int32_t room = (end - slot) * kSlotTokens;
    body(page, first, room < page.tokens - first ? room : page.tokens - first, row);
  }
}

// As attend_item(), for pages of a narrow_kind(), and a head of kWidth numbers. kKept: whether they may keep
// numbers beside their codes. memory: this warp's own.
template <SideKind key_kind, SideKind value_kind, int kWidth, bool kKept, class Warp>
KVA_LANE_CODE void attend_narrow_item(Warp& warp, const AttentionJob& job, const AttentionItem& item,
                                      NarrowMemory& memory) {
  if (item.rows == 0) return;
  const NarrowLane at(warp);
  NarrowPages<key_kind, kWidth> pages(warp, job, item, at);
  NarrowValues<value_kind, kWidth> values;
  OfColumns max = {kNoScore, kNoScore}, sum = {0.0f, 0.0f};
  const int32_t column = 2 * at.quarter;
  while (!pages.done(item)) {
    const int32_t slots = pages.score(warp, job, item, at, memory);
    warp.sync();
    if constexpr (kKept) {
      const NarrowQuery query(job, item, at);
      for_parts_of_pages(
          job, memory, slots, [&](const DevicePage& page, int32_t first, int32_t tokens, int32_t row) {
            add_kept_scores<kWidth>(warp, at, query, key_side(job, page), first, tokens, memory.scores + row);
          });
      warp.sync();
    }
    OfColumns most = max;
    for (int32_t row = at.eighth; row < slots * kSlotTokens; row += 8) {
      most.first = fmaxf(most.first, memory.scores[row][column]);
      most.second = fmaxf(most.second, memory.scores[row][column + 1]);
    }
    most = {most_of_eighths(warp, most.first), most_of_eighths(warp, most.second)};
    const OfColumns factors = {raised_by(max.first, most.first), raised_by(max.second, most.second)};
    values.rescale(factors);
    sum = {sum.first * factors.first, sum.second * factors.second};
    max = most;
    for (int32_t slot = 0; slot < slots; ++slot) {
      const auto weights = [&](int32_t row) {
        const OfColumns of = {score_weight(memory.scores[row][column], max.first),
                              score_weight(memory.scores[row][column + 1], max.second)};
        sum.first += of.first;
        sum.second += of.second;
        return of;
      };
      const OfColumns of_lower = weights(slot * kSlotTokens + at.eighth);
      const OfColumns of_upper = weights(slot * kSlotTokens + at.eighth + 8);
      values.add(warp, at, value_side(job, listed_page(job, memory.pages[slot])),
                 memory.tokens + slot * kSlotTokens, of_lower, of_upper);
    }
    if constexpr (kKept) {
      const float row_max = of_row(warp, at, max);
      for_parts_of_pages(
          job, memory, slots, [&](const DevicePage& page, int32_t first, int32_t tokens, int32_t row) {
            values.add_kept(warp, at, value_side(job, page), first, tokens, memory.scores + row, row_max);
          });
    }
    warp.sync();
  }
  values.write(warp, at, item.rows, item_sums(job, item));
  sum = {sum_of_eighths(warp, sum.first), sum_of_eighths(warp, sum.second)};
  KVA_UNROLL
  for (int i = 0; i < 2; ++i) {
    if (at.eighth != 0 || column + i >= item.rows) continue;
    job.state_max[item.state + column + i] = i ? max.second : max.first;
    job.state_sum[item.state + column + i] = i ? sum.second : sum.first;
  }
}

// Calls body.template run<key kind, value kind>(), of pairs that pages of a narrow_kind() are of.
template <SideKind keys, class Body>
inline void with_narrow_values(SideKind values, const Body& body) {
  if constexpr (!mixes_narrow(keys)) {
    if (values == keys) body.template run<keys, keys>();
  } else {
    switch (values) {
      case SideKind::kF16: return body.template run<keys, SideKind::kF16>();
      case SideKind::kBits8: return body.template run<keys, SideKind::kBits8>();
      case SideKind::kBits4: return body.template run<keys, SideKind::kBits4>();
      case SideKind::kBits3: return body.template run<keys, SideKind::kBits3>();
      case SideKind::kBits2: return body.template run<keys, SideKind::kBits2>();
      default: break;
    }
  }
}
template <class Body>
inline void with_narrow_pair(SideKind keys, SideKind values, const Body& body) {
  switch (keys) {
    case SideKind::kF16: return with_narrow_values<SideKind::kF16>(values, body);
    case SideKind::kBF16: return with_narrow_values<SideKind::kBF16>(values, body);
    case SideKind::kE4M3: return with_narrow_values<SideKind::kE4M3>(values, body);
    case SideKind::kE5M2: return with_narrow_values<SideKind::kE5M2>(values, body);
    case SideKind::kBits8: return with_narrow_values<SideKind::kBits8>(values, body);
    case SideKind::kBits4: return with_narrow_values<SideKind::kBits4>(values, body);
    case SideKind::kBits3: return with_narrow_values<SideKind::kBits3>(values, body);
    case SideKind::kBits2: return with_narrow_values<SideKind::kBits2>(values, body);
    case SideKind::kBits8ByChannel: return with_narrow_values<SideKind::kBits8ByChannel>(values, body);
    case SideKind::kBits4ByChannel: return with_narrow_values<SideKind::kBits4ByChannel>(values, body);
    case SideKind::kBits3ByChannel: return with_narrow_values<SideKind::kBits3ByChannel>(values, body);
    case SideKind::kBits2ByChannel: return with_narrow_values<SideKind::kBits2ByChannel>(values, body);
    default: break;
  }
}

}  // namespace kva
