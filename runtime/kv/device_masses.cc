#include "runtime/kv/device_masses.h"

#include <algorithm>
#include <bit>
#include <limits>

#include "kernels/check.h"
#include "runtime/clock.h"
#include "runtime/kv/page_table.h"

namespace kva {
namespace {

constexpr std::string_view kPurpose = "attention workspace";
// Sums that the host takes at once, about.
constexpr int64_t kAtOnce = 1 << 20;

std::size_t index(int64_t at) { return static_cast<std::size_t>(at); }

int32_t clipped(int64_t at) {
  return static_cast<int32_t>(std::clamp<int64_t>(at, 0, std::numeric_limits<int32_t>::max()));
}

MassTargets targets_of(const DeviceSpan& of, int kv_head) {
  return of.masses ? of.masses->targets(of.first_table + index(kv_head), of.span) : MassTargets();
}

// Of the blocks of queries whose attention the span's table maps; -1: it maps none. The same for all tables.
int32_t map_shift(const DeviceSpan& of) {
  if (!of.masses || !of.masses->mapped()) return -1;
  const auto tokens = static_cast<uint64_t>(of.masses->map(of.first_table).block_tokens());
  return std::countr_zero(tokens);
}

// Addresses stay while contexts grow by an eighth.
int64_t roomy(int64_t tokens) {
  const auto power = static_cast<int64_t>(std::bit_ceil(static_cast<uint64_t>(tokens)));
  const int64_t step = std::max<int64_t>(64, power / 8);
  return (tokens + step - 1) / step * step;
}

template <typename T>
void upload_changed(std::vector<T> values, std::vector<T>& there, DeviceArray<T>& array) {
  if (values == there) return;
  there.clear();
  array.upload(values);
  there = std::move(values);
}

}  // namespace

DeviceMasses::DeviceMasses(const PageStore& store, Backend& backend, int layers, int heads, int kv_heads)
    : store_(store),
      backend_(backend),
      layers_(layers),
      heads_(heads),
      kv_heads_(kv_heads),
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
    description.insert(description.end(), {of.masses ? of.masses->late_start : 0,
                                           of.masses ? of.masses->near_tokens : 0, map_shift(of)});
}

void DeviceMasses::plan(std::span<const DeviceSpan> spans, const AttentionPlan& plan,
                        std::span<const DevicePage> pages, std::span<const AttentionTable> tables,
                        MassPlan& to) const {
  std::vector<MassPage> of_pages(pages.size());
  int64_t longest = 0;
  for (const AttentionTable& table : tables) {
    int64_t tokens = 0;
    for (int32_t p = table.first_page; p < table.first_page + table.page_count; ++p)
      tokens += pages[index(p)].tokens;
    longest = std::max(longest, tokens);
  }
  to.room = roomy(longest);
  KVA_CHECK(to.room * std::ssize(tables) <= std::numeric_limits<int32_t>::max(),
            "tokens that an index reaches");
  to.map_numbers = 0;
  std::vector<MassTable> of_tables;
  for (std::size_t i = 0; i < tables.size(); ++i) {
    const AttentionTable& table = tables[i];
    const DeviceSpan& span = spans[i / index(kv_heads_)];
    MassTable added{.kv_head = table.kv_head,
                    .batch_row = table.batch_row,
                    .position = table.position,
                    .rows = table.tokens * (heads_ / kv_heads_),
                    .late_start = span.masses ? clipped(span.masses->late_start) : 0,
                    .near_tokens = span.masses ? clipped(span.masses->near_tokens) : 0,
                    .map_shift = map_shift(span)};
    auto first = static_cast<int64_t>(i) * to.room;
    if (added.map_shift >= 0) {
      added.map_stride = static_cast<int32_t>(to.room);
      added.map_at = to.map_numbers - first;
      const int32_t last = table.position + table.tokens - 1;
      const int64_t blocks = (last >> added.map_shift) - (table.position >> added.map_shift) + 1;
      to.map_numbers += blocks * to.room;
    }
    of_tables.push_back(added);
    for (int32_t p = table.first_page; p < table.first_page + table.page_count; ++p) {
      of_pages[index(p)] = {.table = static_cast<int32_t>(i), .first = static_cast<int32_t>(first)};
      first += pages[index(p)].tokens;
    }
  }
  std::vector<MassPage> listed;
  listed.reserve(plan.page_list.size());
  for (const int32_t page : plan.page_list) listed.push_back(of_pages[index(page)]);
  for (const AttentionItem& item : plan.items)
    for (int32_t i = item.first_page; i < item.first_page + item.page_count; ++i)
      listed[index(i)].queries = item.queries;
  if (decodes(spans)) listed.resize(std::bit_ceil(listed.size()));
  upload_changed(std::move(of_tables), to.tables_there, to.tables);
  upload_changed(std::move(listed), to.pages_there, to.pages);
}

// Which sums a layer has: the same for all layers, so that what is launched does not depend on their plans.
void DeviceMasses::lay_out(const SpansOf& spans) {
  MassTargets any;
  int64_t numbers = 0;
  int64_t of_map = 0;
  for (int layer = 0; layer < layers_; ++layer) {
    const Slot& slot = slots_[index(layer)];
    if (!slot.plan) continue;
    numbers = std::max(numbers, slot.plan->numbers());
    of_map = std::max(of_map, slot.plan->map_numbers);
    for (const DeviceSpan& of : spans(layer))
      for (int h = 0; h < kv_heads_; ++h) {
        const MassTargets targets = targets_of(of, h);
        if (targets.all) any.all = targets.all;
        if (targets.late) any.late = targets.late;
        if (targets.near) any.near = targets.near;
      }
  }
  kinds_ = {};
  const auto take = [&](bool asked, int64_t count) {
    const int64_t at = kinds_.end;
    if (asked) kinds_.end += count;
    return asked ? at : -1;
  };
  kinds_.all = take(any.all != nullptr, numbers);
  kinds_.late = take(any.late != nullptr, numbers);
  kinds_.near = take(any.near != nullptr, numbers);
  kinds_.map = take(of_map > 0, of_map);
}

void DeviceMasses::begin_step(const SpansOf& spans, int64_t rows, const PlanOf& plans) {
  slots_.resize(index(layers_));
  int64_t observed = 0;
  for (int layer = 0; layer < layers_; ++layer)
    if (wanted(spans(layer))) slots_[index(layer)] = {&plans(layer), observed++};
  if (observed == 0) return slots_.clear();
  rows_ = rows;
  waits_ = decodes(spans(0));
  lay_out(spans);
  for (Slot& slot : slots_) slot.at *= waits_ ? kinds_.end : 0;
  finals_.reserve(2 * rows_ * heads_);
  sums_.reserve((waits_ ? observed : 1) * kinds_.end);
}

MassJob DeviceMasses::job(int layer) const {
  if (slots_.empty() || !slots_[index(layer)].plan) return {};
  const Slot& slot = slots_[index(layer)];
  const auto sums = [&](int64_t at) { return at < 0 ? nullptr : sums_.data() + slot.at + at; };
  return {.pages = slot.plan->pages.data(),
          .count = static_cast<int32_t>(slot.plan->pages_there.size()),
          .tables = slot.plan->tables.data(),
          .heads = heads_,
          .final_max = finals_.data(),
          .final_sum = finals_.data() + rows_ * heads_,
          .all = sums(kinds_.all),
          .late = sums(kinds_.late),
          .near = sums(kinds_.near),
          .map = sums(kinds_.map)};
}

void DeviceMasses::attended(int layer, std::span<const DeviceSpan> spans) {
  if (slots_.empty() || waits_ || !slots_[index(layer)].plan) return;
  std::vector<DeviceSpan> of_layer(spans.begin(), spans.end());
  collect([&](int) { return std::span(of_layer); }, layer, layer + 1);
}

void DeviceMasses::end_step(const SpansOf& spans) {
  if (slots_.empty()) return;
  const auto at_once = static_cast<int>(std::clamp<int64_t>(kAtOnce / kinds_.end, 1, layers_));
  for (int layer = 0; waits_ && layer < layers_; layer += at_once)
    collect(spans, layer, std::min(layer + at_once, layers_));
  slots_.clear();
}

// Brings the sums of layers [first_layer, end_layer), which are neighbours on the device, and adds them.
void DeviceMasses::collect(const SpansOf& spans, int first_layer, int end_layer) {
  const auto start = Clock::now();
  int64_t first = -1;
  int64_t end = 0;
  for (int layer = first_layer; layer < end_layer; ++layer) {
    const Slot& slot = slots_[index(layer)];
    if (!slot.plan) continue;
    if (first < 0) first = slot.at;
    end = slot.at + kinds_.end;
  }
  if (first < 0) return;
  here_.resize(index(end - first));
  backend_.download(here_.data(), sums_.data() + first, (end - first) * int64_t{sizeof(float)});
  for (int layer = first_layer; layer < end_layer; ++layer) {
    const Slot& slot = slots_[index(layer)];
    if (slot.plan) add(*slot.plan, spans(layer), here_.data() + slot.at - first);
  }
  seconds_ += seconds_since(start);
}

void DeviceMasses::add(const MassPlan& plan, std::span<const DeviceSpan> spans, const float* sums) const {
  int64_t table = 0;
  for (const DeviceSpan& of : spans)
    for (int h = 0; h < kv_heads_; ++h, ++table)
      add(targets_of(of, h), of, of.tables[index(h)], plan.tables_there[index(table)], table * plan.room,
          sums);
}

// first: of the table's sums.
void DeviceMasses::add(const MassTargets& targets, const DeviceSpan& of, const PageTable& table,
                       const MassTable& observed, int64_t first, const float* sums) const {
  const int group = heads_ / kv_heads_;
  const float share = 1.0f / static_cast<float>(group);
  const auto add_to_map = [&](int32_t position, int64_t at) {
    const int64_t block = int64_t{1} << observed.map_shift;
    const int64_t end = of.span.start + of.span.tokens;
    for (int64_t query = of.span.start; query < end;
         query = (query / block + 1) * block, at += observed.map_stride)
      targets.map->add(query, position, share * sums[at]);
  };
  int64_t at = first;
  for (const PageRef& ref : table.pages) {
    const PagePlaces places(store_, ref);
    for (int32_t t = 0; t < ref.tokens; ++t, ++at) {
      const int32_t position = places.position(t);
      if (targets.all) targets.all[position] += share * sums[kinds_.all + at];
      if (targets.late) targets.late[position] += share * sums[kinds_.late + at];
      if (targets.near) targets.near[position] += share * sums[kinds_.near + at];
      if (targets.map) add_to_map(position, kinds_.map + observed.map_at + at);
    }
  }
}

int64_t DeviceMasses::held_bytes() const { return finals_.held_bytes() + sums_.held_bytes(); }

}  // namespace kva
