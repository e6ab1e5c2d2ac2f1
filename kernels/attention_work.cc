#include "kernels/attention_work.h"

#include <algorithm>
#include <array>
#include <bit>
#include <compare>
#include <limits>
#include <map>
#include <utility>

#include "kernels/attention_math.h"
#include "kernels/check.h"

namespace kva {
namespace {

// How a page side is read. Sides of one item are read alike.
struct Reading {
  SideKind kind = SideKind::kF16;
  SideKind base = SideKind::kF16;  // of kScaledBase
  bool hadamard = false;
  bool parts = false;
  uint16_t basis = 0;
  int32_t width = 0;

  Reading(uint16_t format_at, uint16_t basis_at, std::span<const SideFormat> formats) {
    const SideFormat& format = formats[format_at];
    kind = format.kind;
    if (kind == SideKind::kScaledBase) base = formats[static_cast<std::size_t>(format.base)].kind;
    hadamard = format.hadamard;
    parts = has_parts(format);
    basis = basis_at;
    width = format.width;
  }
  bool has_coordinates() const { return hadamard || basis > 0; }
  bool is_general() const { return kind >= SideKind::kCentroids || basis > 0 || parts; }
  // NOLINTNEXTLINE(modernize-use-nullptr): the check takes the comparison's own zero for a pointer
  auto operator<=>(const Reading&) const = default;
};

struct PairReading {
  Reading key;
  Reading value;
  NarrowKind narrow = NarrowKind::kNone;

  PairReading(const DevicePage& page, std::span<const SideFormat> formats, bool may_be_narrow)
      : key(page.key_format, page.key_basis, formats),
        value(page.value_format, page.value_basis, formats),
        narrow(may_be_narrow ? narrow_kind(formats[page.key_format], formats[page.value_format])
                             : NarrowKind::kNone) {}
  bool is_general() const {
    return key.is_general() || value.is_general() || has_levels(key.kind) != has_levels(value.kind) ||
           (has_levels(key.kind) && side_bits(key.kind) != side_bits(value.kind));
  }
  // NOLINTNEXTLINE(modernize-use-nullptr): the check takes the comparison's own zero for a pointer
  auto operator<=>(const PairReading&) const = default;
};

constexpr int kPairs = kSideKinds * kSideKinds;
// Buckets: of pairs of kinds, of as many in narrow items, bare and kept, and in tiles; and the general one.
constexpr int kBare = kPairs;
constexpr int kKept = 2 * kPairs;
constexpr int kTiled = 3 * kPairs;
constexpr int kGeneral = 4 * kPairs;
constexpr int kBuckets = kGeneral + 1;

void check_side(const DevicePage& page, uint16_t basis, const SideFormat& format,
                std::span<const SideFormat> formats) {
  KVA_CHECK(format.width > 0 && (format.on_basis || format.width % 8 == 0),
            "a width that is a multiple of 8");
  KVA_CHECK(!is_packed(format.kind) || format.tokens == page.tokens, "the format of so many tokens");
  KVA_CHECK(format.on_basis == (basis > 0), "a basis where numbers are on one");
  KVA_CHECK(!format.hadamard || format.width <= kMostHadamard, "a rotation of so many numbers");
  KVA_CHECK(!has_parts(format) ||
                (is_packed(format.kind) && format.front < page.tokens && reads_units(format.width)),
            "parts beside codes");
  if (format.kind != SideKind::kScaledBase) return;
  KVA_CHECK(format.base >= 0 && static_cast<std::size_t>(format.base) < formats.size(), "a known base");
  const SideFormat& base = formats[static_cast<std::size_t>(format.base)];
  KVA_CHECK(base.kind != SideKind::kScaledBase && !has_parts(base) && !base.hadamard && !base.on_basis &&
                !format.hadamard && !format.on_basis && base.width == format.width,
            "a base of plain numbers");
}

class Planner {
 public:
  Planner(std::span<const DevicePage> pages, std::span<const SideFormat> formats,
          const AttentionLimits& limits)
      : pages_(pages), formats_(formats), limits_(limits) {
    KVA_CHECK(limits.group >= 1 && limits.item_tokens >= 1 && limits.most_runs >= 1, "limits of items");
  }

  void add(const AttentionTable& table) {
    KVA_CHECK(table.first_page >= 0 && table.page_count >= 0 &&
                  static_cast<std::size_t>(table.first_page) + static_cast<std::size_t>(table.page_count) <=
                      pages_.size(),
              "a table within the batch's pages");
    int64_t tokens = 0;
    for (int32_t i = 0; i < table.page_count; ++i) tokens += checked(table.first_page + i).tokens;
    AttentionMerge merge{.first_state = plan_.states,
                         .partials = 0,
                         .rows = table.tokens * limits_.group,
                         .batch_row = table.batch_row,
                         .kv_head = table.kv_head};
    projected_.clear();
    const int64_t run = run_tokens(tokens, merge.rows, limits_);
    int64_t seen = 0;
    int32_t page = table.first_page;
    const int32_t end = table.first_page + table.page_count;
    for (int64_t until = run; page < end; until += run) {
      const int32_t first = page;
      while (page < end && seen < until) seen += pages_[index(page++)].tokens;
      if (page > first) add_run(table, first, page, merge);
    }
    const int64_t states = int64_t{plan_.states} + int64_t{merge.partials} * merge.rows;
    KVA_CHECK(states <= std::numeric_limits<int32_t>::max(), "states that an index reaches");
    plan_.states = static_cast<int32_t>(states);
    plan_.merges.push_back(merge);
  }

  AttentionPlan take() {
    for (int bucket = 0; bucket < kBuckets; ++bucket) {
      const std::vector<AttentionItem>& items = buckets_[index(bucket)];
      if (items.empty()) continue;
      const int kinds = bucket % kPairs;
      plan_.buckets.push_back({.keys = static_cast<SideKind>(kinds / kSideKinds),
                               .values = static_cast<SideKind>(kinds % kSideKinds),
                               .first = static_cast<int32_t>(plan_.items.size()),
                               .count = static_cast<int32_t>(items.size()),
                               .general = bucket == kGeneral,
                               .narrow = narrow_of(bucket),
                               .tiles = tiles_[index(bucket)]});
      plan_.items.insert(plan_.items.end(), items.begin(), items.end());
    }
    return std::move(plan_);
  }

 private:
  static std::size_t index(int32_t i) { return static_cast<std::size_t>(i); }

  const DevicePage& checked(int32_t i) {
    const DevicePage& page = pages_[index(i)];
    KVA_CHECK(page.key_format < formats_.size() && page.value_format < formats_.size(), "a known format");
    check_side(page, page.key_basis, formats_[page.key_format], formats_);
    check_side(page, page.value_basis, formats_[page.value_format], formats_);
    const Reading value(page.value_format, page.value_basis, formats_);
    KVA_CHECK(!is_by_channel(value.kind) && !is_by_channel(value.base), "values packed by token");
    KVA_CHECK(page.tokens > 0 && page.tokens <= kMostPageTokens, "a page of 1 to 256 tokens");
    plan_.longest_page = std::max(plan_.longest_page, page.tokens);
    for (const SideFormat* key : sides(page.key_format))
      plan_.key_numbers = std::max(plan_.key_numbers, key_numbers(*key));
    for (const SideFormat* of : sides(page.value_format))
      plan_.value_numbers = std::max(plan_.value_numbers, value_numbers(*of));
    return page;
  }

  // A side, and its base or itself.
  std::array<const SideFormat*, 2> sides(uint16_t format_at) const {
    const SideFormat& side = formats_[format_at];
    return {&side, side.base < 0 ? &side : &formats_[index(side.base)]};
  }

  // Rows of `width` numbers in coordinates of their own, behind what `units` says; where they begin.
  static int32_t take_rows(int32_t rows, int32_t width, int32_t& units) {
    const int32_t at = units;
    const int64_t end = int64_t{units} + int64_t{rows} * (coordinate_stride(width) / 8);
    KVA_CHECK(end <= std::numeric_limits<int32_t>::max(), "coordinates that an index reaches");
    units = static_cast<int32_t>(end);
    return at;
  }

  bool lifts(const Reading& key) const { return limits_.turns && key.has_coordinates(); }
  bool is_general(const PairReading& pair) const { return pair.is_general() || lifts(pair.key); }
  int bucket_of(const PairReading& pair, TileKind tiles) const {
    const int kinds = static_cast<int>(pair.key.kind) * kSideKinds + static_cast<int>(pair.value.kind);
    if (tiles != TileKind::kNone) return kTiled + kinds;
    if (pair.narrow == NarrowKind::kBare) return kBare + kinds;
    if (pair.narrow == NarrowKind::kKept) return kKept + kinds;
    return is_general(pair) ? kGeneral : kinds;
  }

  static NarrowKind narrow_of(int bucket) {
    if (bucket < kBare || bucket >= kTiled) return NarrowKind::kNone;
    return bucket < kKept ? NarrowKind::kBare : NarrowKind::kKept;
  }

  // Where the table's queries are, for keys that are read so.
  int32_t queries_of(const AttentionTable& table, const Reading& key, int32_t page, int32_t rows) {
    if (!key.has_coordinates() || lifts(key)) return -1;
    // Whatever their kinds, keys of one basis and turn have the same coordinates.
    const auto [known, added] = projected_.try_emplace({key.basis, key.hadamard}, 0);
    if (added) {
      known->second = take_rows(rows, key.width, plan_.coordinate_queries);
      plan_.projections.push_back({page, table.kv_head, table.batch_row, rows, known->second});
    }
    return known->second;
  }

  // The run's pages that are read alike, in order, for every block of query rows.
  void add_run(const AttentionTable& table, int32_t first, int32_t end, AttentionMerge& merge) {
    std::map<PairReading, std::vector<int32_t>> pages;
    auto like = pages.end();  // the page before
    for (int32_t i = first; i < end; ++i) {
      const PairReading pair(pages_[index(i)], formats_, limits_.narrow && !limits_.turns);
      if (like == pages.end() || like->first != pair) like = pages.try_emplace(pair).first;
      like->second.push_back(i);
    }
    for (const auto& [pair, of_pair] : pages) {
      AttentionItem item{.first_page = static_cast<int32_t>(plan_.page_list.size()),
                         .kv_head = table.kv_head,
                         .batch_row = table.batch_row,
                         .position = table.position,
                         .state = merge.first_state + merge.partials++ * merge.rows,
                         .queries = queries_of(table, pair.key, of_pair.front(), merge.rows),
                         .key_width = static_cast<uint16_t>(coordinate_stride(pair.key.width)),
                         .value_width = static_cast<uint16_t>(coordinate_stride(pair.value.width))};
      plan_.page_list.insert(plan_.page_list.end(), of_pair.begin(), of_pair.end());
      if (pair.value.has_coordinates()) {
        item.sums = take_rows(merge.rows, pair.value.width, plan_.coordinate_sums);
        plan_.lifts.push_back({of_pair.front(), item.state, merge.rows, item.sums});
      }
      const TileKind tiles = tiles_of(table, of_pair.front(), merge.rows);
      if (lifts(pair.key))
        plan_.lifted_key =
            std::max(plan_.lifted_key, coordinate_stride(pair.key.width) * (pair.key.hadamard ? 2 : 1));
      if (tiles == TileKind::kNone && is_general(pair))
        for (const int32_t width : {pair.key.width, pair.value.width})
          if (reads_units(width)) plan_.widest = std::max(plan_.widest, width);
      const int bucket = bucket_of(pair, tiles);
      tiles_[index(bucket)] = tiles;
      const int32_t most = tiles != TileKind::kNone           ? kTiledRows
                           : pair.narrow != NarrowKind::kNone ? kNarrowRows
                                                              : kItemRows;
      add_items(table, item, of_pair, merge.rows, most, buckets_[index(bucket)]);
    }
  }

  // How pages like this one go to tiles for the table's query rows. Steps of one token do not: they read
  // every page once, and no faster so.
  TileKind tiles_of(const AttentionTable& table, int32_t page, int32_t rows) const {
    if (limits_.turns || limits_.tile_rows == 0 || table.tokens == 1 || rows < limits_.tile_rows)
      return TileKind::kNone;
    return tile_kind(formats_[pages_[index(page)].key_format], formats_[pages_[index(page)].value_format]);
  }

  // `of_all`, for every `most` of the table's `rows` query rows.
  void add_items(const AttentionTable& table, const AttentionItem& of_all, std::span<const int32_t> of_pair,
                 int32_t rows, int32_t most, std::vector<AttentionItem>& items) {
    for (int32_t row = 0; row < rows; row += most) {
      AttentionItem item = of_all;
      item.first_row = row;
      item.rows = std::min(most, rows - row);
      item.page_count = seen_pages(of_pair, table.position + (row + item.rows - 1) / limits_.group);
      item.state += row;
      if (item.sums >= 0) item.sums += row * (item.value_width / 8);
      items.push_back(item);
    }
  }

  // How many of the pages, from the front, begin at `position` or before.
  int32_t seen_pages(std::span<const int32_t> of_pair, int32_t position) const {
    std::size_t count = of_pair.size();
    while (count > 0 && pages_[index(of_pair[count - 1])].start > position) --count;
    return static_cast<int32_t>(count);
  }

  std::span<const DevicePage> pages_;
  std::span<const SideFormat> formats_;
  const AttentionLimits& limits_;
  std::array<std::vector<AttentionItem>, kBuckets> buckets_;
  std::array<TileKind, kBuckets> tiles_ = {};  // of buckets with items
  // Of the table under way: where its queries are, by the basis of keys and whether they are turned.
  std::map<std::pair<uint16_t, bool>, int32_t> projected_;
  AttentionPlan plan_;
};

int32_t power_of_two(int32_t count) {
  if (count <= 0) return 0;
  KVA_CHECK(count <= 1 << 30, "counts that can be rounded up");
  return static_cast<int32_t>(std::bit_ceil(static_cast<uint32_t>(count)));
}

std::size_t rounded_up(std::size_t count) { return count == 0 ? 0 : std::bit_ceil(count); }

}  // namespace

AttentionGrid::AttentionGrid(const AttentionPlan& plan)
    : buckets(plan.buckets),
      tables(static_cast<int32_t>(plan.merges.size())),
      projections(static_cast<int32_t>(plan.projections.size())),
      lifts(static_cast<int32_t>(plan.lifts.size())),
      longest_page(plan.longest_page),
      widest(plan.widest),
      key_numbers(plan.key_numbers),
      value_numbers(plan.value_numbers),
      lifted_key(plan.lifted_key) {
  for (const AttentionMerge& merge : plan.merges) rows = std::max(rows, merge.rows);
  for (const AttentionProjection& of : plan.projections) projected_rows = std::max(projected_rows, of.rows);
  for (const AttentionLift& of : plan.lifts) lifted_rows = std::max(lifted_rows, of.rows);
}

void round_up(AttentionPlan& plan) {
  std::vector<AttentionItem> items;
  for (AttentionBucket& bucket : plan.buckets) {
    const auto first = plan.items.begin() + bucket.first;
    bucket.first = static_cast<int32_t>(items.size());
    items.insert(items.end(), first, first + bucket.count);
    bucket.count = power_of_two(bucket.count);
    items.resize(static_cast<std::size_t>(int64_t{bucket.first} + bucket.count));
  }
  plan.items = std::move(items);
  plan.states = power_of_two(plan.states);
  plan.coordinate_queries = power_of_two(plan.coordinate_queries);
  plan.coordinate_sums = power_of_two(plan.coordinate_sums);
  plan.projections.resize(rounded_up(plan.projections.size()));
  plan.lifts.resize(rounded_up(plan.lifts.size()));
}

int64_t run_tokens(int64_t tokens, int64_t rows, const AttentionLimits& limits) {
  const int64_t runs =
      std::clamp<int64_t>(limits.most_states / std::max<int64_t>(rows, 1), 1, limits.most_runs);
  const int64_t most = runs * limits.item_tokens;
  return limits.item_tokens * std::max<int64_t>(1, (tokens + most - 1) / most);
}

AttentionPlan plan_attention(std::span<const DevicePage> pages, std::span<const SideFormat> formats,
                             std::span<const AttentionTable> tables, const AttentionLimits& limits) {
  Planner planner(pages, formats, limits);
  for (const AttentionTable& table : tables) planner.add(table);
  return planner.take();
}

namespace {

// A page side's payload and that of its base.
int64_t stored_bytes(std::span<const SideFormat> formats, uint16_t format_at, int64_t tokens) {
  const SideFormat& format = formats[format_at];
  return side_bytes(format, tokens) +
         (format.base < 0 ? 0 : side_bytes(formats[static_cast<std::size_t>(format.base)], tokens));
}

}  // namespace

int64_t attention_bytes(const AttentionPlan& plan, std::span<const DevicePage> pages,
                        std::span<const SideFormat> formats, int64_t head_dim) {
  int64_t bytes = 0;
  for (std::size_t n = 0; n < plan.items.size(); ++n) {
    const AttentionItem& item = plan.items[n];
    bytes += item.rows * (2 * head_dim + 2) * int64_t{sizeof(float)};  // the query, and the state
    // Items of one run are neighbours, and the last query rows see the most pages.
    if (n + 1 < plan.items.size() && plan.items[n + 1].first_page == item.first_page) continue;
    for (int32_t i = 0; i < item.page_count; ++i) {
      const std::size_t listed = static_cast<std::size_t>(item.first_page) + static_cast<std::size_t>(i);
      const DevicePage& page = pages[static_cast<std::size_t>(plan.page_list[listed])];
      bytes += stored_bytes(formats, page.key_format, page.tokens) +
               stored_bytes(formats, page.value_format, page.tokens) + int64_t{sizeof(DevicePage)} +
               (page.biases ? page.tokens * int64_t{sizeof(float)} : 0) + int64_t{sizeof(int32_t)};
    }
  }
  for (const AttentionMerge& merge : plan.merges)
    bytes += merge.rows * (merge.partials * (head_dim + 2) + head_dim) * int64_t{sizeof(float)};
  // The queries or sums of a table's rows twice, and the basis once.
  const auto coordinates = [&](uint16_t format_at, int64_t rows) {
    const SideFormat& format = formats[format_at];
    return rows * (format.width + head_dim) * int64_t{sizeof(float)} +
           (format.on_basis ? int64_t{2} * format.width * head_dim : 0);
  };
  for (const AttentionProjection& of : plan.projections)
    bytes += coordinates(pages[static_cast<std::size_t>(of.page)].key_format, of.rows);
  for (const AttentionLift& of : plan.lifts)
    bytes += coordinates(pages[static_cast<std::size_t>(of.page)].value_format, of.rows);
  return bytes;
}

int64_t attention_flops(const AttentionPlan& plan, std::span<const DevicePage> pages, int32_t group,
                        int64_t head_dim) {
  int64_t seen = 0;
  for (const AttentionItem& item : plan.items)
    for (int32_t i = 0; i < item.page_count; ++i) {
      const std::size_t listed = static_cast<std::size_t>(item.first_page) + static_cast<std::size_t>(i);
      const DevicePage& page = pages[static_cast<std::size_t>(plan.page_list[listed])];
      for (int32_t row = item.first_row; row < item.first_row + item.rows; ++row)
        seen += page.has_places ? page.tokens
                                : visible_tokens(item.position + row / group, page.start, page.tokens);
    }
  return 4 * seen * head_dim;
}

}  // namespace kva
