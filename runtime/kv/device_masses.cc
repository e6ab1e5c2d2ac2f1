#include "runtime/kv/device_masses.h"

#include <algorithm>
#include <chrono>
#include <limits>

#include "kernels/check.h"
#include "runtime/kv/page_table.h"

namespace kva {
namespace {

constexpr std::string_view kPurpose = "attention workspace";

std::size_t index(int64_t at) { return static_cast<std::size_t>(at); }

int32_t clipped(int64_t at) {
  return static_cast<int32_t>(std::clamp<int64_t>(at, 0, std::numeric_limits<int32_t>::max()));
}

MassTargets targets_of(const DeviceSpan& of, int kv_head) {
  return of.masses ? of.masses->targets(of.first_table + index(kv_head), of.span) : MassTargets();
}

}  // namespace

DeviceMasses::DeviceMasses(const PageStore& store, Backend& backend, int heads, int kv_heads)
    : store_(store),
      backend_(backend),
      heads_(heads),
      kv_heads_(kv_heads),
      pages_(backend, kPurpose),
      tables_(backend, kPurpose),
      finals_(backend, kPurpose),
      sums_(backend, kPurpose) {}

bool DeviceMasses::wanted(std::span<const DeviceSpan> spans) const {
  for (const DeviceSpan& of : spans)
    for (int h = 0; h < kv_heads_; ++h)
      if (targets_of(of, h).any()) return true;
  return false;
}

void DeviceMasses::describe(std::span<const DeviceSpan> spans, std::vector<int64_t>& description) const {
  for (const DeviceSpan& of : spans)
    description.insert(description.end(),
                       {of.masses ? of.masses->late_start : 0, of.masses ? of.masses->near_tokens : 0});
}

void DeviceMasses::plan(std::span<const DeviceSpan> spans, const AttentionPlan& plan,
                        std::span<const DevicePage> pages, std::span<const AttentionTable> tables,
                        int64_t batch_rows) {
  std::vector<MassTable> of_tables;
  std::vector<MassPage> of_pages(pages.size());
  tokens_ = 0;
  for (std::size_t i = 0; i < tables.size(); ++i) {
    const AttentionTable& table = tables[i];
    const AttentionMasses* masses = spans[i / index(kv_heads_)].masses;
    of_tables.push_back({.kv_head = table.kv_head,
                         .batch_row = table.batch_row,
                         .position = table.position,
                         .rows = table.tokens * (heads_ / kv_heads_),
                         .late_start = masses ? clipped(masses->late_start) : 0,
                         .near_tokens = masses ? clipped(masses->near_tokens) : 0});
    for (int32_t p = table.first_page; p < table.first_page + table.page_count; ++p) {
      KVA_CHECK(tokens_ <= std::numeric_limits<int32_t>::max(), "tokens that an index reaches");
      of_pages[index(p)] = {static_cast<int32_t>(i), static_cast<int32_t>(tokens_)};
      tokens_ += pages[index(p)].tokens;
    }
  }
  std::vector<MassPage> listed;
  listed.reserve(plan.page_list.size());
  for (const int32_t page : plan.page_list) listed.push_back(of_pages[index(page)]);
  for (const AttentionItem& item : plan.items)
    for (int32_t i = item.first_page; i < item.first_page + item.page_count; ++i)
      listed[index(i)].queries = item.queries;
  entries_ = static_cast<int32_t>(listed.size());
  rows_ = batch_rows;
  tables_.upload(of_tables);
  pages_.upload(listed);
  finals_.reserve(2 * rows_ * heads_);
  sums_.reserve(3 * tokens_);
}

MassJob DeviceMasses::job() const {
  return {.pages = pages_.data(),
          .count = entries_,
          .tables = tables_.data(),
          .heads = heads_,
          .final_max = finals_.data(),
          .final_sum = finals_.data() + rows_ * heads_,
          .all = sums_.data(),
          .late = sums_.data() + tokens_,
          .near = sums_.data() + 2 * tokens_};
}

void DeviceMasses::collect(std::span<const DeviceSpan> spans) {
  using Clock = std::chrono::steady_clock;
  const auto start = Clock::now();
  here_.resize(index(3 * tokens_));
  backend_.download(here_.data(), sums_.data(), 3 * tokens_ * int64_t{sizeof(float)});
  const float* sums = here_.data();
  for (const DeviceSpan& of : spans)
    for (int h = 0; h < kv_heads_; ++h) add(targets_of(of, h), of.tables[index(h)], sums);
  seconds_ += std::chrono::duration<double>(Clock::now() - start).count();
}

// sums: of the table's first token; moves on to the next table's.
void DeviceMasses::add(const MassTargets& targets, const PageTable& table, const float*& sums) const {
  const int group = heads_ / kv_heads_;
  const float share = 1.0f / static_cast<float>(group);
  for (const PageRef& ref : table.pages) {
    const PagePlaces places(store_, ref);
    for (int32_t t = 0; t < ref.tokens; ++t, ++sums) {
      const int32_t position = places.position(t);
      if (targets.all) targets.all[position] += share * sums[0];
      if (targets.late) targets.late[position] += share * sums[tokens_];
      if (targets.near) targets.near[position] += share * sums[2 * tokens_];
    }
  }
}

int64_t DeviceMasses::held_bytes() const {
  return pages_.held_bytes() + tables_.held_bytes() + finals_.held_bytes() + sums_.held_bytes();
}

}  // namespace kva
