#include "compressors/eviction_step.h"

#include <fmt/format.h>

#include <algorithm>
#include <cmath>

#include "compressors/token_page.h"
#include "kernels/check.h"
#include "runtime/error.h"

namespace kva {
namespace {

void add_to(Plan& plan, Plan of_table) {
  const auto first = static_cast<int>(plan.sides.size());
  std::move(of_table.sides.begin(), of_table.sides.end(), std::back_inserter(plan.sides));
  for (PlanRewrite& rewrite : of_table.rewrites) {
    if (rewrite.k >= 0) rewrite.k += first;
    if (rewrite.v >= 0) rewrite.v += first;
    plan.rewrites.push_back(std::move(rewrite));
  }
}

}  // namespace

EvictionStep::EvictionStep(std::string_view method, std::unique_ptr<TokenPolicy> policy)
    : method_(method), policy_(std::move(policy)), needs_(policy_->needs()) {}

void EvictionStep::begin(const StepContext& context) {
  expect_both_sides(context, method_);
  if (needs_.classes && !context.classes)
    throw InputError(fmt::format(
        "{}: expected a tokenizer to tell special tokens and punctuation by, found none; run it on a model "
        "and text",
        method_));
  classes_known_ = context.classes != nullptr;
  policy_->begin(context.seed);
  for (const Cell& cell : context.cells)
    if (cell.side == Side::kKey) tables_.emplace_back(cell.layer, cell.kv_head);
}

Observations EvictionStep::observes() const {
  return {.attention_mass = needs_.mass,
          .late_mass = needs_.late_queries.value > 0,
          .near_mass = needs_.near_tokens.value > 0};
}

void EvictionStep::begin_prompt(const StepContext& context, SequenceId sequence, int64_t start,
                                int64_t tokens) {
  prompts_[sequence] = {.tokens = tokens, .end = start + tokens};
  if (needs_.late_queries.value > 0)
    context.cache.set_late_start(sequence, start + tokens - needs_.late_queries.of(tokens));
  if (needs_.near_tokens.value > 0) context.cache.set_near_tokens(sequence, needs_.near_tokens.of(tokens));
}

PolicyMoment EvictionStep::moment(const KvCache& cache, const Revision& revision) const {
  const auto prompt = prompts_.find(revision.sequence);
  if (prompt == prompts_.end()) return {.prompt_ended = revision.prompt_ended};
  return {.prompt_ended = revision.prompt_ended,
          .in_prompt = cache.tokens(revision.sequence) < prompt->second.end,
          .prompt_tokens = prompt->second.tokens};
}

void EvictionStep::read(const StepContext& context, const Revision& revision, Work& work) const {
  const KvCache& cache = context.cache;
  TokenTable& table = work.table;
  work.pages = table_pages(cache, revision.sequence, table.layer, table.kv_head, revision.settled);
  for (std::size_t p = 0; p < work.pages.size(); ++p)
    for (std::size_t t = 0; t < work.pages[p].positions.size(); ++t) {
      if (!work.pages[p].stays[t]) continue;
      table.positions.push_back(work.pages[p].positions[t]);
      work.at.emplace_back(p, t);
    }
  table.movable = table.tokens();
  table.seen = cache.tokens(revision.sequence);
  // What is not settled is as it came.
  for (int64_t at = revision.settled; at < table.seen; ++at)
    table.positions.push_back(static_cast<int32_t>(at));
  read_mass(cache, revision.sequence, table);
  if (needs_.keys) read_keys(cache, work, revision.sequence, table);
  if (context.classes && !revision.ids.empty())
    for (const int32_t position : table.positions)
      table.classes.push_back(context.classes->of(revision.ids[static_cast<std::size_t>(position)]));
  work.stays.assign(table.positions.size(), 1);
}

void EvictionStep::read_mass(const KvCache& cache, SequenceId sequence, TokenTable& table) const {
  const auto gather = [&](std::span<const float> of_positions, std::vector<float>& into) {
    into.reserve(table.positions.size());
    for (const int32_t position : table.positions) {
      const float mass = of_positions[static_cast<std::size_t>(position)];
      if (!std::isfinite(mass))
        throw InputError(
            fmt::format("layer {}, KV head {}: token at position {}: expected finite attention, "
                        "found {}; {} has nothing to rank it by",
                        table.layer, table.kv_head, position, mass, method_));
      into.push_back(mass);
    }
  };
  if (needs_.mass) gather(cache.attention_mass(sequence, table.layer, table.kv_head), table.mass);
  if (needs_.late_queries.value > 0)
    gather(cache.late_mass(sequence, table.layer, table.kv_head), table.late_mass);
  if (needs_.near_tokens.value > 0)
    gather(cache.near_mass(sequence, table.layer, table.kv_head), table.near_mass);
}

void EvictionStep::read_keys(const KvCache& cache, const Work& work, SequenceId sequence,
                             TokenTable& table) const {
  const auto dim = static_cast<std::size_t>(cache.options().head_dim);
  std::vector<float> rows;
  const int64_t pages = cache.pages(sequence, table.layer, table.kv_head);
  for (int64_t p = 0; p < pages; ++p) {
    const PageAddress at{sequence, table.layer, table.kv_head, p, Side::kKey};
    const int64_t tokens = cache.page(at).tokens;
    rows.resize(static_cast<std::size_t>(tokens) * dim);
    cache.read_page(sequence, table.layer, table.kv_head, p, Side::kKey,
                    MatView<float>(rows.data(), tokens, static_cast<int64_t>(dim)));
    for (std::size_t t = 0; t < static_cast<std::size_t>(tokens); ++t) {
      const bool read = p >= static_cast<int64_t>(work.pages.size()) ||
                        work.pages[static_cast<std::size_t>(p)].stays[t] != 0;
      const auto row = rows.begin() + static_cast<std::ptrdiff_t>(t * dim);
      if (read) table.keys.insert(table.keys.end(), row, row + static_cast<std::ptrdiff_t>(dim));
    }
  }
  for (std::size_t i = 0; i < table.keys.size(); ++i)
    if (!std::isfinite(table.keys[i]))
      throw InputError(
          fmt::format("layer {}, KV head {}, K: token at position {}: expected finite numbers, found {}",
                      table.layer, table.kv_head, table.positions[i / dim], table.keys[i]));
}

// Policies see the heads of a layer together.
void EvictionStep::decide(const Revision& revision, const PolicyMoment& moment, std::vector<Work>& works) {
  std::vector<TokenTable> tables;
  tables.reserve(works.size());
  for (Work& work : works) tables.push_back(std::move(work.table));
  if (moment.prompt_ended) policy_->end_prompt(revision.sequence, tables);
  for (std::size_t first = 0; first < tables.size();) {
    std::size_t end = first;
    while (end < tables.size() && tables[end].layer == tables[first].layer) ++end;
    std::vector<Stays> stays;
    for (std::size_t i = first; i < end; ++i) stays.push_back(std::move(works[i].stays));
    policy_->choose(revision.sequence, moment, std::span(tables).subspan(first, end - first), stays);
    for (std::size_t i = first; i < end; ++i) works[i].stays = std::move(stays[i - first]);
    first = end;
  }
  for (std::size_t i = 0; i < works.size(); ++i) works[i].table = std::move(tables[i]);
}

std::vector<Plan> EvictionStep::revise(const StepContext& context, const Revision& revision) {
  const PolicyMoment now = moment(context.cache, revision);
  if (!policy_->acts(now)) return {};
  std::vector<Work> works(tables_.size());
  const auto for_tables = [&](const auto& body) {
    context.pool.parallel_for(static_cast<int64_t>(works.size()),
                              [&](int64_t index, int) { body(works[static_cast<std::size_t>(index)]); });
  };
  for (std::size_t i = 0; i < works.size(); ++i) {
    works[i].table.layer = tables_[i].first;
    works[i].table.kv_head = tables_[i].second;
  }
  for_tables([&](Work& work) { read(context, revision, work); });
  decide(revision, now, works);
  for_tables([&](Work& work) {
    bool changed = false;
    for (std::size_t t = 0; t < work.at.size(); ++t) {
      if (work.stays[t]) continue;
      TablePage& page = work.pages[static_cast<std::size_t>(work.at[t].first)];
      page.stays[static_cast<std::size_t>(work.at[t].second)] = 0;
      page.changed = changed = true;
    }
    if (changed)
      work.rewrite =
          rewrite_table(context.cache, revision.sequence, work.table.layer, work.table.kv_head, work.pages);
  });
  std::vector<Plan> plans;
  int layer = -1;
  for (Work& work : works) {
    count(work);
    if (std::exchange(layer, work.table.layer) != work.table.layer) plans.emplace_back();
    add_to(plans.back(), std::move(work.rewrite.plan));
  }
  return plans;
}

void EvictionStep::count(const Work& work) {
  const TokenTable& table = work.table;
  recoded_ += work.rewrite.recoded_tokens;
  for (std::size_t t = 0; t < work.at.size(); ++t) {
    if (work.stays[t]) continue;
    ++dropped_;
    const int64_t age = table.seen - 1 - table.positions[t];
    ++dropped_by_age_[static_cast<std::size_t>(4 * age / table.seen)];
    if (!table.classes.empty()) ++dropped_by_class_[static_cast<std::size_t>(table.classes[t])];
    if (!table.mass.empty()) dropped_mass_ += double{table.mass[t]};
  }
}

void EvictionStep::forked(const StepContext&, SequenceId sequence, SequenceId copy, int64_t) {
  if (const auto prompt = prompts_.find(sequence); prompt != prompts_.end()) prompts_[copy] = prompt->second;
  policy_->forked(sequence, copy);
}

void EvictionStep::forget(const StepContext&, SequenceId sequence) {
  prompts_.erase(sequence);
  policy_->forget(sequence);
}

std::vector<std::pair<std::string, double>> EvictionStep::counters() const {
  std::vector<std::pair<std::string, double>> result;
  const auto add = [&](std::string_view name, double value) {
    result.emplace_back(fmt::format("{}.{}", method_, name), value);
  };
  add("dropped_tokens", static_cast<double>(dropped_));
  for (std::size_t i = 0; i < dropped_by_age_.size(); ++i)
    add(fmt::format("dropped_age_quarter_{}", i + 1), static_cast<double>(dropped_by_age_[i]));
  if (classes_known_)
    for (const TokenClass of : kTokenClasses)
      add(fmt::format("dropped_{}_tokens", token_class_name(of)),
          static_cast<double>(dropped_by_class_[static_cast<std::size_t>(of)]));
  if (needs_.mass) add("dropped_attention", dropped_mass_);
  return result;
}

std::vector<std::string> EvictionStep::remarks() const {
  if (recoded_ == 0) return {};
  return {fmt::format("{}: {} tokens were coded again when their pages were packed, a second loss", method_,
                      recoded_)};
}

}  // namespace kva
