#include "compressors/token_page.h"

#include <fmt/format.h>

#include <algorithm>
#include <cmath>
#include <numeric>

#include "kernels/check.h"
#include "runtime/error.h"

namespace kva {
namespace {

void expect_finite(const Draft& draft, const DraftStream& stream) {
  for (std::size_t i = 0; i < stream.rows.size(); ++i)
    if (!std::isfinite(stream.rows[i]))
      throw InputError(fmt::format(
          "{} of the page at position {}: token {}: expected finite numbers, found {}",
          cell_name(stream.origin), draft.start, static_cast<int64_t>(i) / stream.width, stream.rows[i]));
}

// The value stream that the tables of a key stream share, and only they; null where there is none.
DraftStream* values_of(Draft& draft, const DraftStream& k) {
  const auto value_cell = [](const Cell& cell) { return Cell{cell.layer, cell.kv_head, Side::kValue}; };
  DraftStream* v = draft.stream_of(value_cell(k.cells.front()));
  if (!v || !v->unformatted() || v->shared || v->cells.size() != k.cells.size()) return nullptr;
  for (const Cell& cell : k.cells)
    if (std::find(v->cells.begin(), v->cells.end(), value_cell(cell)) == v->cells.end() ||
        !draft.same_places(cell, k.cells.front()))
      return nullptr;
  return v;
}

void add_mass(const KvCache& cache, const Draft& draft, const Cell& table, TokenPage& page) {
  const auto mass = cache.attention_mass(draft.sequence, table.layer, table.kv_head);
  for (std::size_t t = 0; t < page.positions.size(); ++t) {
    const auto position = static_cast<std::size_t>(page.positions[t]);
    KVA_CHECK(position < mass.size(), "attention mass of every token");
    page.mass[t] += mass[position];
    if (!std::isfinite(mass[position]))
      throw InputError(
          fmt::format("{} of the page at position {}: token {}: expected finite attention, found {}",
                      cell_name(table), draft.start, t, mass[position]));
  }
}

}  // namespace

std::string refuse_dropping(const StepPlace& place) {
  if (place.key_basis == KeyBasis::kPageRelative)
    return "a page with gaps has no start to turn queries by, found keys(page-relative); use keys(rotated) "
           "or "
           "keys(plain)";
  if (place.sides != Sides::kBoth)
    return "tokens go with their keys and values, found a statement for one side; leave side(...) out";
  return "";
}

void expect_both_sides(const StepContext& context, std::string_view method) {
  for (const Cell& cell : context.cells) {
    Cell other = cell;
    other.side = cell.side == Side::kKey ? Side::kValue : Side::kKey;
    if (std::find(context.cells.begin(), context.cells.end(), other) != context.cells.end()) continue;
    throw InputError(fmt::format(
        "{}: tokens go with their keys and values; expected both of layer {}, KV head {} in its statement, "
        "found {} elsewhere; name layers or heads, not sides, in the other statements",
        method, cell.layer, cell.kv_head, other.side == Side::kKey ? "K" : "V"));
  }
}

std::vector<TokenPage> token_pages(const StepContext& context, Draft& draft) {
  std::vector<TokenPage> pages;
  for (DraftStream& k : draft.streams) {
    if (k.cells.empty() || k.cells.front().side != Side::kKey || !k.unformatted() || k.shared) continue;
    DraftStream* v = values_of(draft, k);
    if (!v) continue;
    for (const DraftStream* stream : {&k, v}) expect_finite(draft, *stream);
    TokenPage page{.k = &k, .v = v, .tables = k.cells};
    const auto tokens = static_cast<std::size_t>(k.tokens);
    page.mass.resize(tokens);
    if (const DraftPlaces* places = draft.places_of(k.cells.front().layer, k.cells.front().kv_head)) {
      page.positions = places->positions;
      for (const float bias : places->biases) page.counts.push_back(std::exp(double{bias}));
    } else {
      page.positions.resize(tokens);
      std::iota(page.positions.begin(), page.positions.end(), static_cast<int32_t>(draft.start));
      page.counts.assign(tokens, 1.0);
    }
    for (const Cell& table : page.tables) add_mass(context.cache, draft, table, page);
    pages.push_back(std::move(page));
  }
  return pages;
}

std::vector<int64_t> survivors(const TokenPage& page, double keep, int64_t sinks) {
  std::vector<int64_t> order(page.positions.size());
  std::iota(order.begin(), order.end(), int64_t{0});
  const auto is_sink = [&](int64_t t) { return page.positions[static_cast<std::size_t>(t)] < sinks; };
  const auto mass = [&](int64_t t) { return page.mass[static_cast<std::size_t>(t)]; };
  std::stable_sort(order.begin(), order.end(), [&](int64_t a, int64_t b) {
    if (is_sink(a) != is_sink(b)) return is_sink(a);
    return !is_sink(a) && mass(a) > mass(b);
  });
  // 0.1 * 30 is a little over 3.
  constexpr double kRounding = 1e-9;
  const auto wanted =
      static_cast<std::ptrdiff_t>(std::ceil(keep * static_cast<double>(order.size()) - kRounding));
  const std::ptrdiff_t all_sinks = std::count_if(order.begin(), order.end(), is_sink);
  order.resize(static_cast<std::size_t>(std::max({wanted, all_sinks, std::ptrdiff_t{1}})));
  std::sort(order.begin(), order.end());
  return order;
}

std::vector<float> rows_of(const DraftStream& stream, const std::vector<int64_t>& kept) {
  std::vector<float> rows;
  rows.reserve(kept.size() * static_cast<std::size_t>(stream.width));
  for (const int64_t t : kept) {
    const auto row = stream.rows.begin() + t * stream.width;
    rows.insert(rows.end(), row, row + stream.width);
  }
  return rows;
}

void shrink(Draft& draft, const TokenPage& page, const std::vector<int64_t>& kept,
            const std::vector<double>& counts, std::vector<float> k, std::vector<float> v) {
  DraftPlaces places;
  for (std::size_t i = 0; i < kept.size(); ++i) {
    places.positions.push_back(page.positions[static_cast<std::size_t>(kept[i])]);
    places.biases.push_back(static_cast<float>(std::log(counts[i])));
  }
  for (const auto& [stream, rows] : {std::pair{page.k, &k}, std::pair{page.v, &v}}) {
    KVA_CHECK(rows->size() == kept.size() * static_cast<std::size_t>(stream->width),
              "a row for each survivor");
    stream->rows = std::move(*rows);
    stream->tokens = static_cast<int64_t>(kept.size());
    stream->changed = true;
    // Those had the dense bytes of the whole page.
    stream->equals.clear();
  }
  for (const Cell& table : page.tables) {
    places.layer = table.layer;
    places.kv_head = table.kv_head;
    draft.place(places);
  }
}

ParameterInfo keep_parameter() {
  return {.name = "keep",
          .kind = ParameterKind::kNumber,
          .fallback = "0.5",
          .lower = 0,
          .upper = 1,
          .above_lower = true,
          .unit = "share",
          .help = "share of each page's tokens that stay: those with most attention so far"};
}

std::vector<ParameterInfo> untouched_parameters() {
  return {{.name = "sinks",
           .kind = ParameterKind::kInteger,
           .fallback = "4",
           .lower = 0,
           .upper = 65536,
           .unit = "tokens",
           .help = "first tokens of a sequence that always stay as they are"},
          {.name = "window",
           .kind = ParameterKind::kInteger,
           .fallback = "64",
           .lower = 0,
           .upper = 1048576,
           .unit = "tokens",
           .help = "latest tokens of a sequence left alone: pages wait until so many follow"}};
}

}  // namespace kva
