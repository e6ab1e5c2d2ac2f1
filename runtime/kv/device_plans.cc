#include "runtime/kv/device_plans.h"

#include <algorithm>
#include <bit>

#include "kernels/packed_math.h"

namespace kva {
namespace {

constexpr std::string_view kPurpose = "attention workspace";
// Of a table with many query rows; those with few reach AttentionLimits::most_runs first.
constexpr int32_t kMostStates = 2048;

std::size_t index(int64_t at) { return static_cast<std::size_t>(at); }

}  // namespace

DevicePlans::DevicePlans(const KvCacheOptions& options, const DeviceTables& tables,
                         const DeviceMasses& masses, Backend& backend)
    : options_(options), tables_(tables), masses_(masses), backend_(backend) {}

void DevicePlans::make(const SpansOf& spans) {
  count_ = 0;
  of_layers_.clear();
  for (int layer = 0; layer < options_.layers; ++layer) {
    const std::span<const DeviceSpan> of = spans(layer);
    describe(layer, of);
    std::size_t same = count_;  // the latest, of layers that are alike
    while (same > 0 && plans_[same - 1]->asked != asked_) --same;
    if (same == 0) {
      if (count_ == plans_.size()) plans_.push_back(std::make_unique<DevicePlan>(backend_, kPurpose));
      fill(*plans_[count_], layer, of);
      same = ++count_;
    }
    of_layers_.push_back(same - 1);
  }
}

int64_t DevicePlans::most_states() const {
  int64_t most = 0;
  for (std::size_t i = 0; i < count_; ++i) most = std::max<int64_t>(most, plans_[i]->plan.states);
  return most;
}

int64_t DevicePlans::most_coordinates() const {
  int64_t most = 0;
  for (std::size_t i = 0; i < count_; ++i)
    most = std::max(most,
                    (int64_t{plans_[i]->plan.coordinate_queries} + plans_[i]->plan.coordinate_sums) * kUnit);
  return most;
}

// All that a plan follows from, as numbers: equal ones, equal plans.
void DevicePlans::describe(int layer, std::span<const DeviceSpan> spans) {
  const bool observed = masses_.wanted(spans);
  asked_.assign({tables_.layouts(), int64_t{observed}});
  if (observed) masses_.describe(spans, asked_);
  for (const DeviceSpan& of : spans) {
    asked_.insert(asked_.end(), {of.span.sequence, of.span.first_row, of.span.tokens, of.span.start});
    for (int h = 0; h < options_.kv_heads; ++h) {
      const auto shapes = tables_.shapes(layer, of.span.sequence, h);
      asked_.push_back(std::ssize(shapes));
      for (const PageShape& shape : shapes)
        asked_.insert(asked_.end(), {shape.pages, shape.tokens, shape.key_format, shape.value_format,
                                     shape.key_basis, shape.value_basis});
    }
  }
}

void DevicePlans::list_pages(DevicePlan& plan, int layer, std::span<const DeviceSpan> spans) {
  plan.pages.clear();
  plan.tables.clear();
  places_.clear();
  for (std::size_t s = 0; s < spans.size(); ++s) {
    const BatchSpan& span = spans[s].span;
    for (int h = 0; h < options_.kv_heads; ++h) {
      const std::size_t first = plan.pages.size();
      for (const PageShape& shape : tables_.shapes(layer, span.sequence, h))
        plan.pages.insert(plan.pages.end(), index(shape.pages),
                          {.tokens = shape.tokens,
                           .key_format = shape.key_format,
                           .value_format = shape.value_format,
                           .key_basis = shape.key_basis,
                           .value_basis = shape.value_basis});
      // Pages that hold tokens of the step have no gaps; of those before it is enough that they lie before.
      int64_t end = span.start + span.tokens;
      for (std::size_t p = plan.pages.size(); p > first && end > span.start; --p) {
        end -= plan.pages[p - 1].tokens;
        plan.pages[p - 1].start = static_cast<int32_t>(end);
      }
      const auto count = static_cast<int32_t>(plan.pages.size() - first);
      for (int32_t p = 0; p + 1 < count; ++p) places_.push_back(tables_.place(span.sequence, h, p));
      places_.push_back(tables_.last_place(s, h));
      plan.tables.push_back({.first_page = static_cast<int32_t>(first),
                             .page_count = count,
                             .kv_head = h,
                             .batch_row = static_cast<int32_t>(span.first_row),
                             .tokens = static_cast<int32_t>(span.tokens),
                             .position = static_cast<int32_t>(span.start)});
    }
  }
}

void DevicePlans::fill(DevicePlan& to, int layer, std::span<const DeviceSpan> spans) {
  to.asked.clear();
  list_pages(to, layer, spans);
  // Tiles are filled with keys that are stored as their positions turn them.
  to.plan = plan_attention(to.pages, tables_.formats(), to.tables,
                           {.group = options_.heads / options_.kv_heads,
                            .most_states = kMostStates,
                            .turns = options_.rope && options_.key_basis != KeyBasis::kRotated,
                            .tile_rows = kLeastTileRows});
  if (decodes(spans)) round_up(to.plan);
  to.plan.longest_page = std::max(to.plan.longest_page, options_.page_tokens);
  upload(to);
  if (masses_.wanted(spans)) masses_.plan(spans, to.plan, to.pages, to.tables, to.masses);
  to.asked = asked_;
}

// Items change with every position; the rest is there already in most steps.
void DevicePlans::upload(DevicePlan& plan) {
  plan.items.upload(plan.plan.items);
  std::vector<int32_t> places = plan.plan.page_list;
  for (int32_t& page : places) page = places_[index(page)];
  if (places != plan.places_there) {
    plan.places_there.clear();
    plan.page_list.reserve(static_cast<int64_t>(std::bit_ceil(places.size())));  // seldom moves
    plan.page_list.upload(places);
    plan.places_there = std::move(places);
  }
  if (plan.plan.merges != plan.merges_there) {
    plan.merges_there.clear();
    plan.merges.upload(plan.plan.merges);
    plan.merges_there = plan.plan.merges;
  }
  std::vector<AttentionProjection> projections = plan.plan.projections;
  for (AttentionProjection& of : projections) of.page = places_[index(of.page)];
  plan.projections.upload(projections);
  std::vector<AttentionLift> lifts = plan.plan.lifts;
  for (AttentionLift& of : lifts) of.page = places_[index(of.page)];
  plan.lifts.upload(lifts);
}

int64_t DevicePlans::held_bytes() const {
  int64_t bytes = 0;
  for (const auto& plan : plans_)
    bytes += plan->items.held_bytes() + plan->page_list.held_bytes() + plan->merges.held_bytes() +
             plan->projections.held_bytes() + plan->lifts.held_bytes() + plan->masses.held_bytes();
  return bytes;
}

}  // namespace kva
