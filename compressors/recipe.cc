#include "compressors/recipe.h"

#include <fmt/format.h>

#include <algorithm>

#include "kernels/check.h"
#include "runtime/error.h"

namespace kva {
namespace {

constexpr int kNobody = -1;

std::string trigger_text(const Trigger& trigger) {
  switch (trigger.kind) {
    case Trigger::Kind::kSeal: return "";
    case Trigger::Kind::kPrefill: return "@prefill";
    case Trigger::Kind::kEvery: return fmt::format("@every={}", trigger.tokens);
    case Trigger::Kind::kTokens: return fmt::format("@tokens>{}", trigger.tokens);
  }
  return "?";
}

std::string range_text(const IndexRange& range) {
  return range.first == range.last ? std::to_string(range.first)
                                   : fmt::format("{}-{}", range.first, range.last);
}

void append_ranges(std::string& text, std::string_view kind, const std::vector<IndexRange>& ranges) {
  if (ranges.empty()) return;
  text += fmt::format("{}{}(", text.empty() ? "" : "&", kind);
  for (std::size_t i = 0; i < ranges.size(); ++i) text += (i > 0 ? "," : "") + range_text(ranges[i]);
  text += ")";
}

// Which of `count` layers or heads a selector names, each once and rising.
std::vector<int> selected(const std::vector<IndexRange>& ranges, int count, std::string_view kind,
                          const Statement& statement) {
  std::vector<char> named(static_cast<std::size_t>(count), ranges.empty() ? 1 : 0);
  const auto fail = [&](const IndexRange& range, const std::string& what) {
    throw InputError(fmt::format("recipe, {}: {}({}): {}", statement.place, kind, range_text(range), what));
  };
  for (const IndexRange& range : ranges) {
    for (const int index : {range.first, range.last})
      if (index >= count || index < -count)
        fail(range,
             fmt::format("expected 0 to {} (or -{} to -1) in this model, found {}", count - 1, count, index));
    const int first = range.first < 0 ? range.first + count : range.first;
    const int last = range.last < 0 ? range.last + count : range.last;
    if (first > last) fail(range, fmt::format("expected a rising range, found {} to {}", first, last));
    std::fill(named.begin() + first, named.begin() + last + 1, 1);
  }
  std::vector<int> indices;
  for (int index = 0; index < count; ++index)
    if (named[static_cast<std::size_t>(index)]) indices.push_back(index);
  return indices;
}

[[noreturn]] void fail_overlap(const Statement& first, const Statement& second, int layer, int head,
                               Side side) {
  throw InputError(
      fmt::format("recipe, {}: {} and {} of {} both name the {} of layer {}, KV head {}; expected each cell "
                  "in one statement",
                  second.place, second.where.text(), first.where.text(), first.place,
                  side == Side::kKey ? "keys" : "values", layer, head));
}

}  // namespace

std::string RecipeStep::text() const {
  return std::string(method->name) + arguments.text() + trigger_text(trigger);
}

std::string CellSelector::text() const {
  std::string text;
  append_ranges(text, "layers", layers);
  append_ranges(text, "heads", heads);
  if (sides != Sides::kBoth)
    text += fmt::format("{}side({})", text.empty() ? "" : "&", sides == Sides::kKeys ? "k" : "v");
  return text;
}

std::string Statement::pipeline_text() const {
  std::string text;
  for (const RecipeStep& step : pipeline) text += (text.empty() ? "" : " | ") + step.text();
  return text;
}

RecipeCells::RecipeCells(int layers, int kv_heads)
    : layers_(layers),
      kv_heads_(kv_heads),
      statements_(static_cast<std::size_t>(layers) * static_cast<std::size_t>(kv_heads) * 2, kNobody) {}

std::size_t RecipeCells::cell(int layer, int kv_head, Side side) const {
  const auto head = static_cast<std::size_t>(layer) * static_cast<std::size_t>(kv_heads_) +
                    static_cast<std::size_t>(kv_head);
  return head * 2 + (side == Side::kValue ? 1 : 0);
}

int RecipeCells::statement(int layer, int kv_head, Side side) const {
  KVA_CHECK(layer >= 0 && layer < layers_ && kv_head >= 0 && kv_head < kv_heads_, "a cell of the model");
  return statements_[cell(layer, kv_head, side)];
}

std::string Recipe::text() const {
  std::string text;
  if (keys_.positions == PositionMode::kCacheRelative)
    text = fmt::format("keys({},{})", key_basis_name(keys_.basis), kCacheRelativeName);
  else if (keys_.basis != KeyBasis::kRotated)
    text = fmt::format("keys({})", key_basis_name(keys_.basis));
  const auto written = std::ranges::count(statements_, false, &Statement::implied);
  for (const Statement& statement : statements_) {
    if (statement.implied && written > 0) continue;
    if (!text.empty()) text += " ; ";
    if (statement.rest && written > 1) text += "rest: ";
    if (!statement.rest) text += statement.where.text() + ": ";
    text += statement.pipeline_text();
  }
  return text;
}

void Recipe::claim_cells(int index, RecipeCells& cells) const {
  const Statement& statement = statements_[static_cast<std::size_t>(index)];
  const std::vector<int> layers = selected(statement.where.layers, cells.layers_, "layers", statement);
  const std::vector<int> heads = selected(statement.where.heads, cells.kv_heads_, "heads", statement);
  for (const int layer : layers) {
    for (const int head : heads) {
      for (const Side side : {Side::kKey, Side::kValue}) {
        if (!covers(statement.where.sides, side)) continue;
        int& owner = cells.statements_[cells.cell(layer, head, side)];
        if (owner != kNobody)
          fail_overlap(statements_[static_cast<std::size_t>(owner)], statement, layer, head, side);
        owner = index;
      }
    }
  }
}

RecipeCells Recipe::resolve(int layers, int kv_heads) const {
  KVA_CHECK(layers > 0 && kv_heads > 0, "a model has layers and heads");
  RecipeCells cells(layers, kv_heads);
  int rest = kNobody;
  for (int index = 0; index < static_cast<int>(statements_.size()); ++index) {
    if (statements_[static_cast<std::size_t>(index)].rest) {
      rest = index;
    } else {
      claim_cells(index, cells);
    }
  }
  std::ranges::replace(cells.statements_, kNobody, rest);
  return cells;
}

}  // namespace kva
