// The keys of an item as one run of slots, whatever the lengths of their pages: which page and token is
// behind each slot of a tile. By the threads of one block.
//
// A Team has thread() of 0 to kTileThreads - 1, lane() and warp() of it; sync(), behind which the block's
// threads see each other's writes; any(bool) and shuffle_xor(float, mask) among the lanes of a warp.
#pragma once

#include <cstdint>
#include <limits>

#include "kernels/attention_job.h"
#include "kernels/attention_tiles.h"
#include "kernels/attention_units.h"
#include "kernels/host_device.h"

namespace kva {

// Tiles have no more slots than that, so that the pages of one always fit: each has a token of it.
inline constexpr int kWindowPages = 64;

// How the numbers of a packed side are read: by units (kernels/packed_math.h) that share a scale, by units
// whose numbers have scales of their own, or number by number. Other sides are read by units.
enum class UnitWay : uint8_t { kShared, kOwn, kOdd };

// What is read of a page again and again, in shared memory.
struct TilePage {
  const uint8_t* keys;
  const uint8_t* values;
  const SideFormat* key_format;
  const SideFormat* value_format;
  const float* biases;
  int32_t tokens;
  int32_t end;  // the item's tokens up to its last one
  int32_t start;
  bool has_places;
  bool keys_kept;  // numbers beside the codes
  bool values_kept;
  UnitWay key_way;
  UnitWay value_way;
};

inline constexpr int32_t kSeenByAll = std::numeric_limits<int32_t>::min();
inline constexpr int32_t kSeenByNone = std::numeric_limits<int32_t>::max();

// The slots of a tile. Those behind the last token are empty.
template <int kKeys>
struct TileSlots {
  int32_t where[kKeys];      // page of the window * 256 + token; -1: empty
  int32_t seen_from[kKeys];  // the first position whose query sees it
  float biases[kKeys];
  bool masked[kKeys / 32];  // whether queries differ in what they see of the slots, or there are biases
};

// A tile reads what the one before has, and is filled while that is worked on, whose slots may still be in
// use: three in turn.
inline constexpr int kSlotsInTurn = 3;

// Where an item's walk over its pages is: pages [first, first + count) of the item are in the window, with
// tokens [.., end) of it. The same for all threads.
struct TileWalk {
  int32_t first = 0;
  int32_t count = 0;
  int32_t end = 0;
};

KVA_LANE_CODE inline bool has_kept(const SideFormat& format) {
  return is_packed(format.kind) && (format.outliers > 0 || format.dense_channels > 0);
}

KVA_LANE_CODE inline UnitWay unit_way(const SideFormat& format) {
  if (!is_packed(format.kind)) return UnitWay::kShared;
  if (is_by_channel(format.kind) && format.tokens % kUnit != 0) return UnitWay::kOdd;
  if (units_share_scales(format)) return UnitWay::kShared;
  return format.groups == 1 || (format.group & (format.group - 1)) == 0 ? UnitWay::kOwn : UnitWay::kOdd;
}

// The page of the window that has token `token` of the item.
KVA_LANE_CODE inline int32_t page_with(const TilePage* window, const TileWalk& walk, int32_t token) {
  int32_t low = 0;
  int32_t high = walk.count - 1;
  while (low < high) {
    const int32_t middle = (low + high) / 2;
    if (window[middle].end > token)
      high = middle;
    else
      low = middle + 1;
  }
  return low;
}

// Brings the item's pages from `first` on, of which `token` is the first token, to the window.
template <class Team>
KVA_LANE_CODE void move_window(Team& team, const AttentionJob& job, const AttentionItem& item, int32_t first,
                               int32_t token, TilePage* window, TileWalk& walk) {
  team.sync();  // some may still look at the pages before
  const int32_t left = item.page_count - first;
  walk.first = first;
  walk.count = left < kWindowPages ? left : kWindowPages;
  const int32_t thread = team.thread();
  if (thread < walk.count) {
    const DevicePage& page = job.pages[job.page_list[item.first_page + first + thread]];
    const SideFormat* keys = job.formats + page.key_format;
    const SideFormat* values = job.formats + page.value_format;
    TilePage& to = window[thread];
    to.keys = reinterpret_cast<const uint8_t*>(page.keys);
    to.values = reinterpret_cast<const uint8_t*>(page.values);
    to.key_format = keys;
    to.value_format = values;
    to.biases = page.biases;
    to.tokens = page.tokens;
    to.start = page.start;
    to.has_places = page.has_places;
    to.keys_kept = has_kept(*keys);
    to.values_kept = has_kept(*values);
    to.key_way = unit_way(*keys);
    to.value_way = unit_way(*values);
  }
  team.sync();
  if (thread < walk.count) {
    int32_t end = token;
    for (int32_t i = 0; i <= thread; ++i) end += window[i].tokens;
    window[thread].end = end;
  }
  team.sync();
  walk.end = window[walk.count - 1].end;
}

KVA_LANE_CODE inline bool has_token(const TileWalk& walk, const AttentionItem& item, int32_t token) {
  return token < walk.end || walk.first + walk.count < item.page_count;
}

// The slots of the tile that begins with token `first` of the item, which exists. position: of the item's
// first query. The threads meet before anyone reads the slots.
template <int kKeys, class Team>
KVA_LANE_CODE void place_slots(Team& team, const AttentionJob& job, const AttentionItem& item,
                               int32_t position, int32_t first, TilePage* window, TileWalk& walk,
                               TileSlots<kKeys>& slots) {
  if (walk.end < first + kKeys && walk.first + walk.count < item.page_count) {
    int32_t page = walk.count;
    int32_t token = first;
    if (first < walk.end) {
      page = page_with(window, walk, first);
      token = window[page].end - window[page].tokens;
    }
    move_window(team, job, item, walk.first + page, token, window, walk);
  }
  const int32_t slot = team.thread();
  if (slot >= kKeys) return;
  int32_t seen_from = kSeenByNone;
  float bias = 0.0f;
  int32_t where = -1;
  if (first + slot < walk.end) {
    const int32_t of = page_with(window, walk, first + slot);
    const TilePage& page = window[of];
    const int32_t token = first + slot - (page.end - page.tokens);
    where = of * 256 + token;
    seen_from = page.has_places ? kSeenByAll : page.start + token;
    if (page.biases) bias = page.biases[token];
  }
  slots.where[slot] = where;
  slots.seen_from[slot] = seen_from;
  slots.biases[slot] = bias;
  const bool masked = team.any(seen_from > position || bias != 0.0f);
  if (team.lane() == 0) slots.masked[slot / 32] = masked;
}

template <int kKeys>
KVA_LANE_CODE inline bool is_masked(const TileSlots<kKeys>& slots) {
  bool masked = false;
  for (const bool of_warp : slots.masked) masked = masked || of_warp;
  return masked;
}

}  // namespace kva
