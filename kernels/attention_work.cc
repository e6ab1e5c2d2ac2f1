#include "kernels/attention_work.h"

#include <algorithm>
#include <array>
#include <bit>
#include <limits>
#include <utility>

#include "kernels/check.h"

namespace kva {
namespace {

constexpr int kKindPairs = kSideKinds * kSideKinds;
constexpr int kPairs = 4 * kKindPairs;  // of each side, turned or not

int pair_of(const DevicePage& page, std::span<const SideFormat> formats) {
  const SideFormat& key = formats[page.key_format];
  const SideFormat& value = formats[page.value_format];
  return (2 * int{value.hadamard} + int{key.hadamard}) * kKindPairs +
         static_cast<int>(key.kind) * kSideKinds + static_cast<int>(value.kind);
}
bool has_turned_keys(int pair) { return pair / kKindPairs % 2 != 0; }
bool has_turned_values(int pair) { return pair / kKindPairs >= 2; }

void check_side(const DevicePage& page, const SideFormat& format) {
  KVA_CHECK(format.width > 0 && format.width % 8 == 0, "a width that is a multiple of 8");
  KVA_CHECK(!is_packed(format.kind) || format.tokens == page.tokens, "the format of so many tokens");
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
                         .kv_head = table.kv_head,
                         .first_turned = plan_.turned_states};
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
    const int64_t turned = int64_t{plan_.turned_states} + int64_t{merge.turned} * merge.rows;
    KVA_CHECK(states + turned <= std::numeric_limits<int32_t>::max(), "states that an index reaches");
    plan_.states = static_cast<int32_t>(states);
    plan_.turned_states = static_cast<int32_t>(turned);
    plan_.merges.push_back(merge);
  }

  AttentionPlan take() {
    // Turned states lie behind the others.
    for (AttentionMerge& merge : plan_.merges) merge.first_turned += plan_.states;
    for (int pair = 0; pair < kPairs; ++pair) {
      std::vector<AttentionItem>& items = buckets_[index(pair)];
      if (items.empty()) continue;
      if (has_turned_values(pair))
        for (AttentionItem& item : items) item.state += plan_.states;
      plan_.buckets.push_back({.keys = static_cast<SideKind>(pair % kKindPairs / kSideKinds),
                               .values = static_cast<SideKind>(pair % kSideKinds),
                               .first = static_cast<int32_t>(plan_.items.size()),
                               .count = static_cast<int32_t>(items.size()),
                               .hadamard_keys = has_turned_keys(pair)});
      plan_.items.insert(plan_.items.end(), items.begin(), items.end());
    }
    plan_.states += plan_.turned_states;
    return std::move(plan_);
  }

 private:
  static std::size_t index(int32_t i) { return static_cast<std::size_t>(i); }

  const DevicePage& checked(int32_t i) {
    const DevicePage& page = pages_[index(i)];
    KVA_CHECK(page.key_format < formats_.size() && page.value_format < formats_.size(), "a known format");
    check_side(page, formats_[page.key_format]);
    check_side(page, formats_[page.value_format]);
    KVA_CHECK(!is_by_channel(formats_[page.value_format].kind), "values packed by token");
    KVA_CHECK(page.tokens > 0 && page.tokens <= kMostPageTokens, "a page of 1 to 256 tokens");
    plan_.longest_page = std::max(plan_.longest_page, page.tokens);
    return page;
  }

  // The run's pages of each pair of kinds, in order, for every block of query rows.
  void add_run(const AttentionTable& table, int32_t first, int32_t end, AttentionMerge& merge) {
    std::array<bool, kPairs> present{};
    for (int32_t i = first; i < end; ++i) present[index(pair_of(pages_[index(i)], formats_))] = true;
    for (int pair = 0; pair < kPairs; ++pair) {
      if (!present[index(pair)]) continue;
      const auto listed = static_cast<int32_t>(plan_.page_list.size());
      for (int32_t i = first; i < end; ++i)
        if (pair_of(pages_[index(i)], formats_) == pair) plan_.page_list.push_back(i);
      const std::span<const int32_t> of_pair =
          std::span<const int32_t>(plan_.page_list).subspan(index(listed));
      const int32_t first_state = has_turned_values(pair) ? merge.first_turned + merge.turned++ * merge.rows
                                                          : merge.first_state + merge.partials++ * merge.rows;
      for (int32_t row = 0; row < merge.rows; row += kItemRows) {
        const int32_t rows = std::min(kItemRows, merge.rows - row);
        const int32_t last_position = table.position + (row + rows - 1) / limits_.group;
        buckets_[index(pair)].push_back({listed, seen_pages(of_pair, last_position), table.kv_head,
                                         table.batch_row, table.position, row, rows, first_state + row});
      }
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
  std::array<std::vector<AttentionItem>, kPairs> buckets_;
  AttentionPlan plan_;
};

int32_t power_of_two(int32_t count) {
  if (count <= 0) return 0;
  KVA_CHECK(count <= 1 << 30, "counts that can be rounded up");
  return static_cast<int32_t>(std::bit_ceil(static_cast<uint32_t>(count)));
}

}  // namespace

AttentionGrid::AttentionGrid(const AttentionPlan& plan)
    : buckets(plan.buckets),
      tables(static_cast<int32_t>(plan.merges.size())),
      longest_page(plan.longest_page) {
  for (const AttentionMerge& merge : plan.merges) rows = std::max(rows, merge.rows);
}

void round_up(AttentionPlan& plan) {
  const int32_t plain = plan.states - plan.turned_states;
  const int32_t shift = power_of_two(plain) - plain;
  std::vector<AttentionItem> items;
  for (AttentionBucket& bucket : plan.buckets) {
    const auto first = plan.items.begin() + bucket.first;
    bucket.first = static_cast<int32_t>(items.size());
    items.insert(items.end(), first, first + bucket.count);
    bucket.count = power_of_two(bucket.count);
    items.resize(static_cast<std::size_t>(int64_t{bucket.first} + bucket.count));
  }
  // Turned states stay behind the others.
  for (AttentionItem& item : items)
    if (item.rows > 0 && item.state >= plain) item.state += shift;
  for (AttentionMerge& merge : plan.merges) merge.first_turned += shift;
  plan.items = std::move(items);
  plan.turned_states = power_of_two(plan.turned_states);
  plan.states = plain + shift + plan.turned_states;
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
      bytes += side_bytes(formats[page.key_format], page.tokens) +
               side_bytes(formats[page.value_format], page.tokens) + int64_t{sizeof(DevicePage)} +
               (page.biases ? page.tokens * int64_t{sizeof(float)} : 0) + int64_t{sizeof(int32_t)};
    }
  }
  for (const AttentionMerge& merge : plan.merges)
    bytes += merge.rows * (merge.count() * (head_dim + 2) + head_dim) * int64_t{sizeof(float)};
  return bytes;
}

}  // namespace kva
