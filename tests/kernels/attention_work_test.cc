#include "kernels/attention_work.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <bit>
#include <map>
#include <random>
#include <set>
#include <utility>

#include "kernels/attention_job.h"

namespace kva {
namespace {

const std::vector<SideFormat> kFormats = {{.kind = SideKind::kF16, .width = 64, .bytes = 128},
                                          {.kind = SideKind::kBF16, .width = 64, .bytes = 128},
                                          {.kind = SideKind::kE4M3, .width = 64, .bytes = 64}};

struct Batch {
  std::vector<DevicePage> pages;
  std::vector<AttentionTable> tables;

  // A table of pages of 1 to most_tokens tokens in formats drawn by `random`.
  void add(int32_t page_count, int32_t most_tokens, int32_t queries, std::mt19937& random) {
    AttentionTable table{static_cast<int32_t>(pages.size()), page_count, 0, 0, queries, 0};
    int32_t start = 0;
    for (int32_t i = 0; i < page_count; ++i) {
      DevicePage page;
      page.tokens = 1 + static_cast<int32_t>(random() % static_cast<unsigned>(most_tokens));
      page.start = start;
      page.key_format = static_cast<uint16_t>(random() % 3);
      page.value_format = static_cast<uint16_t>(random() % 2);
      start += page.tokens;
      pages.push_back(page);
    }
    table.kv_head = static_cast<int32_t>(tables.size() % 3);
    table.batch_row = static_cast<int32_t>(tables.size());
    table.position = std::max(0, start - queries);
    tables.push_back(table);
  }
};

std::size_t at(int32_t i) { return static_cast<std::size_t>(i); }

// Every row of every table meets each of its visible pages exactly once; states are one for each and none is
// left out; items keep to their bucket, and to their length.
void expect_sound(const Batch& batch, const AttentionLimits& limits) {
  const AttentionPlan plan = plan_attention(batch.pages, kFormats, batch.tables, limits);
  ASSERT_EQ(plan.merges.size(), batch.tables.size());
  std::vector<std::set<int32_t>> met(at(plan.states));
  std::vector<int> written(at(plan.states));
  int32_t next = 0;
  for (const AttentionBucket& bucket : plan.buckets) {
    EXPECT_EQ(bucket.first, next);
    next += bucket.count;
    for (int32_t i = bucket.first; i < bucket.first + bucket.count; ++i) {
      const AttentionItem& item = plan.items[at(i)];
      ASSERT_TRUE(item.rows >= 1 &&
                  item.rows <= (bucket.narrow == NarrowKind::kNone ? kItemRows : kNarrowRows));
      int64_t tokens = 0;
      int32_t last = -1;
      for (int32_t p = 0; p < item.page_count; ++p) {
        const int32_t index = plan.page_list[at(item.first_page + p)];
        EXPECT_GT(index, last);  // in order
        last = index;
        const DevicePage& page = batch.pages[at(index)];
        EXPECT_EQ(kFormats[page.key_format].kind, bucket.keys);
        EXPECT_EQ(kFormats[page.value_format].kind, bucket.values);
        tokens += page.tokens;
        for (int32_t r = 0; r < item.rows; ++r) EXPECT_TRUE(met[at(item.state + r)].insert(index).second);
      }
      for (int32_t r = 0; r < item.rows; ++r) ++written[at(item.state + r)];
      const AttentionTable& table = batch.tables[at(item.batch_row)];
      int64_t total = 0;
      for (int32_t p = 0; p < table.page_count; ++p) total += batch.pages[at(table.first_page + p)].tokens;
      EXPECT_LT(tokens, run_tokens(total, table.tokens * limits.group, limits) + plan.longest_page);
    }
  }
  EXPECT_EQ(next, static_cast<int32_t>(plan.items.size()));
  EXPECT_EQ(std::count(written.begin(), written.end(), 1), plan.states);
  int32_t states = 0;
  for (std::size_t t = 0; t < batch.tables.size(); ++t) {
    const AttentionTable& table = batch.tables[t];
    const AttentionMerge& merge = plan.merges[t];
    EXPECT_EQ(merge.first_state, states);
    EXPECT_EQ(merge.rows, table.tokens * limits.group);
    EXPECT_EQ(merge.kv_head, table.kv_head);
    EXPECT_LE(merge.partials, limits.most_runs * 6);  // six pairs of kinds
    states += merge.partials * merge.rows;
    for (int32_t r = 0; r < merge.rows; ++r) {
      std::multiset<int32_t> all;
      std::map<std::pair<SideKind, SideKind>, int32_t> last;  // page met so far
      for (int32_t n = 0; n < merge.partials; ++n) {
        const std::set<int32_t>& of_state = met[at(merge.first_state + n * merge.rows + r)];
        all.insert(of_state.begin(), of_state.end());
        if (of_state.empty()) continue;
        // The runs of one pair of kinds follow each other.
        const DevicePage& page = batch.pages[at(*of_state.begin())];
        const auto kinds = std::pair(kFormats[page.key_format].kind, kFormats[page.value_format].kind);
        if (last.contains(kinds)) {
          EXPECT_GT(*of_state.begin(), last[kinds]);
        }
        last[kinds] = *of_state.rbegin();
      }
      std::multiset<int32_t> wanted;
      const int32_t position = table.position + r / limits.group;
      for (int32_t p = table.first_page; p < table.first_page + table.page_count; ++p)
        if (batch.pages[at(p)].start <= position) wanted.insert(p);
      // A page behind a row is met where it is not behind a later row of the item; it is masked there.
      EXPECT_TRUE(std::includes(all.begin(), all.end(), wanted.begin(), wanted.end()));
      EXPECT_EQ(std::set<int32_t>(all.begin(), all.end()).size(), all.size());
    }
  }
  EXPECT_EQ(states, plan.states);
}

TEST(AttentionWork, CoversEveryPageOfEveryRowOnce) {
  std::mt19937 random(1);
  for (const int32_t group : {1, 3, 9}) {
    for (const int32_t item_tokens : {1, 16, 100, 512}) {
      Batch batch;
      batch.add(1, 1, 1, random);
      batch.add(40, 17, 1, random);
      batch.add(9, 256, 1, random);
      batch.add(12, 16, 30, random);
      batch.add(70, 64, 5, random);
      expect_sound(batch, {.group = group, .item_tokens = item_tokens, .most_runs = 1 << 20});
      expect_sound(batch, {.group = group, .item_tokens = item_tokens, .most_runs = 4});
    }
  }
}

// The same pages, tables and limits give the same plan; a table's places and runs do not depend on which
// others are in the batch.
TEST(AttentionWork, ATablesRunsDoNotDependOnTheBatch) {
  std::mt19937 random(2);
  Batch batch;
  for (int i = 0; i < 4; ++i) batch.add(30 + i, 33, 1 + i, random);
  const AttentionLimits limits{.group = 2, .item_tokens = 64, .most_runs = 8};
  const AttentionPlan all = plan_attention(batch.pages, kFormats, batch.tables, limits);
  for (std::size_t t = 0; t < batch.tables.size(); ++t) {
    const AttentionPlan alone = plan_attention(batch.pages, kFormats, {&batch.tables[t], 1}, limits);
    ASSERT_EQ(alone.merges[0].partials, all.merges[t].partials);
    const auto states = [&](const AttentionPlan& plan, std::size_t merge) {
      std::map<int32_t, std::vector<int32_t>> pages;  // by place
      for (const AttentionItem& item : plan.items) {
        const int32_t place = item.state - plan.merges[merge].first_state;
        if (item.batch_row != batch.tables[t].batch_row) continue;
        pages[place].assign(plan.page_list.begin() + item.first_page,
                            plan.page_list.begin() + item.first_page + item.page_count);
      }
      return pages;
    };
    EXPECT_EQ(states(alone, 0), states(all, t));
  }
}

TEST(AttentionWork, StatesDoNotGrowWithTheContext) {
  std::mt19937 random(3);
  const AttentionLimits limits{.group = 4, .item_tokens = 512, .most_runs = 16};
  for (const int32_t pages : {200, 2000, 20000}) {
    Batch batch;
    batch.add(pages, 64, 1, random);
    const AttentionPlan plan = plan_attention(batch.pages, kFormats, batch.tables, limits);
    EXPECT_LE(plan.states, 16 * 6 * 4);
  }
}

// By hand: two pages of 16 and 3 tokens, f16 keys and values of 64 numbers, one query head, one item.
TEST(AttentionWork, BytesByHand) {
  std::vector<DevicePage> pages(2);
  pages[0].tokens = 16;
  pages[1].tokens = 3;
  pages[1].start = 16;
  const std::vector<AttentionTable> tables = {{.page_count = 2, .position = 18}};
  const AttentionPlan plan = plan_attention(pages, kFormats, tables, {});
  EXPECT_EQ(plan.states, 1);
  const int64_t payload = 19 * 2 * 128;
  const int64_t entries = 2 * (static_cast<int64_t>(sizeof(DevicePage)) + 4);
  const int64_t query_and_state = (64 + 64 + 2) * 4;
  const int64_t merge = (64 + 2 + 64) * 4;
  EXPECT_EQ(attention_bytes(plan, pages, kFormats, 64), payload + entries + query_and_state + merge);
}

// By hand: 4 rows of 128 numbers and of 64 scores are 3072 bytes a warp.
TEST(AttentionWork, LaunchesByHand) {
  const AttentionLaunch four = attention_launch(9, attention_shared_values(128, 64), 48 << 10);
  EXPECT_EQ(four.warps, 4);
  EXPECT_EQ(four.blocks, 3);
  EXPECT_EQ(four.shared_bytes, 4 * 3072);
  const AttentionLaunch two = attention_launch(9, attention_shared_values(128, 64), 2 * 3072 + 100);
  EXPECT_EQ(two.warps, 2);
  EXPECT_EQ(two.blocks, 5);
  EXPECT_EQ(two.shared_bytes, 2 * 3072);
}

// Items and states as they were, but for where they are; between them what is left out.
TEST(AttentionWork, RoundedPlansLaunchPowersOfTwo) {
  std::mt19937 random(4);
  Batch batch;
  batch.add(40, 17, 1, random);
  batch.add(9, 256, 1, random);
  std::vector<SideFormat> formats(kFormats.begin(), kFormats.end());
  formats[1].hadamard = true;
  const AttentionPlan plan =
      plan_attention(batch.pages, formats, batch.tables, {.group = 5, .item_tokens = 64});
  ASSERT_GT(plan.coordinate_queries + plan.coordinate_sums, 0);
  AttentionPlan rounded = plan;
  round_up(rounded);
  const auto is_power = [](int32_t count) { return std::has_single_bit(static_cast<uint32_t>(count)); };
  const auto is_rounded = [&](int32_t room, int32_t count) {
    return count == 0 ? room == 0 : is_power(room) && room >= count && room < 2 * count;
  };
  EXPECT_TRUE(is_rounded(rounded.states, plan.states));
  EXPECT_TRUE(is_rounded(rounded.coordinate_queries, plan.coordinate_queries));
  EXPECT_TRUE(is_rounded(rounded.coordinate_sums, plan.coordinate_sums));
  EXPECT_EQ(rounded.page_list, plan.page_list);
  int32_t next = 0;
  for (std::size_t b = 0; b < plan.buckets.size(); ++b) {
    const AttentionBucket& bucket = rounded.buckets[b];
    EXPECT_EQ(bucket.first, next);
    EXPECT_TRUE(is_power(bucket.count));
    next += bucket.count;
    for (int32_t i = 0; i < bucket.count; ++i) {
      const AttentionItem& item = rounded.items[at(bucket.first + i)];
      if (i >= plan.buckets[b].count) {
        EXPECT_EQ(item.rows, 0);
        continue;
      }
      const AttentionItem& before = plan.items[at(plan.buckets[b].first + i)];
      EXPECT_EQ(item.first_page, before.first_page);
      EXPECT_EQ(item.state, before.state);
    }
  }
  EXPECT_EQ(next, static_cast<int32_t>(rounded.items.size()));
  EXPECT_EQ(rounded.merges, plan.merges);
  const AttentionGrid grid(rounded);
  EXPECT_EQ(grid.tables, 2);
  EXPECT_EQ(grid.rows, 5);
}

// Where each page or token turns the queries, they cannot be brought to coordinates once for all.
TEST(AttentionWork, KeysAreBroughtBackFromTheirCoordinatesWhereQueriesAreTurned) {
  std::mt19937 random(5);
  Batch batch;
  batch.add(12, 20, 1, random);
  std::vector<SideFormat> formats(kFormats.begin(), kFormats.end());
  for (SideFormat& format : formats) format.hadamard = true;
  const AttentionPlan once = plan_attention(batch.pages, formats, batch.tables, {});
  const AttentionPlan turned = plan_attention(batch.pages, formats, batch.tables, {.turns = true});
  EXPECT_FALSE(once.projections.empty());
  EXPECT_EQ(once.lifted_key, 0);
  EXPECT_TRUE(turned.projections.empty());
  EXPECT_EQ(turned.coordinate_queries, 0);
  EXPECT_EQ(turned.lifted_key, 2 * formats[0].width);
  EXPECT_EQ(turned.lifts.size(), once.lifts.size());
  for (const AttentionBucket& bucket : turned.buckets) EXPECT_TRUE(bucket.general);
  for (const AttentionItem& item : turned.items) EXPECT_EQ(item.queries, -1);
}

TEST(AttentionWork, AnEmptyTableHasNoStates) {
  const std::vector<AttentionTable> tables = {{.page_count = 0}};
  const AttentionPlan plan = plan_attention({}, kFormats, tables, {});
  EXPECT_EQ(plan.states, 0);
  EXPECT_TRUE(plan.items.empty());
  ASSERT_EQ(plan.merges.size(), 1u);
  EXPECT_EQ(plan.merges[0].partials, 0);
}

}  // namespace
}  // namespace kva
