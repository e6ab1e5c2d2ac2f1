#include "reports/ab_tables.h"

#include <fmt/format.h>

#include <algorithm>
#include <cmath>
#include <nlohmann/json.hpp>

#include "reports/ab_view.h"
#include "reports/text_format.h"

namespace kva {
namespace {

Cell text(std::string value) { return {std::move(value)}; }
Cell of(const Json& row, const char* key, std::string (*format)(double)) {
  const double value = number_at(row, key);
  return {format(value), value};
}

std::string bytes(double value) { return format_bytes(value); }
std::string count(double value) { return format_count(value); }
std::string digits2(double value) { return format_number(value, 2); }
std::string digits3(double value) { return format_number(value, 3); }
std::string perplexity(double value) {
  return value < 1e5 ? format_number(value, 3) : format_significant(value);
}
std::string times(double value) { return std::isnan(value) ? "–" : format_number(value, 2) + "×"; }
std::string significant(double value) { return format_significant(value); }
std::string change(double value) { return format_change(value); }
std::string share(double value) { return format_share(value, 2); }
std::string milliseconds(double value) {
  return std::isnan(value) ? "–" : format_number(value, value < 10 ? 2 : 1) + " ms";
}

// "0.0123 [0.011, 0.013]"; bounds alone where there is no key for the value.
Cell with_bounds(double value, double low, double high, std::string (*format)(double)) {
  const std::string interval =
      std::isnan(low) ? "no interval" : fmt::format("[{}, {}]", format(low), format(high));
  return {fmt::format("{} {}", format(value), interval), value};
}

Cell row_estimate(const Json& row, const char* key, std::string (*format)(double)) {
  const Interval interval = row_interval(row, key);
  return with_bounds(interval.value, interval.low, interval.high, format);
}

Cell estimate(const Json& row, const char* key, std::string (*format)(double)) {
  const Interval found = estimate_of(row, key);
  return with_bounds(found.value, found.low, found.high, format);
}

// NaN where no value is finite.
struct Spread {
  double median = NAN;
  double most = NAN;
  double place = NAN;  // of the largest
};
Spread spread_of(const std::vector<double>& values) {
  Spread spread;
  std::vector<double> known;
  for (std::size_t i = 0; i < values.size(); ++i) {
    if (!std::isfinite(values[i])) continue;
    known.push_back(values[i]);
    if (!(values[i] <= spread.most)) {
      spread.most = values[i];
      spread.place = static_cast<double>(i);
    }
  }
  if (known.empty()) return spread;
  std::sort(known.begin(), known.end());
  const std::size_t middle = known.size() / 2;
  spread.median = known.size() % 2 == 1 ? known[middle] : (known[middle - 1] + known[middle]) / 2;
  return spread;
}

void add_quality(std::vector<Cell>& cells, const Json& row) {
  cells.push_back(of(row, "perplexity", perplexity));
  cells.push_back(of(row, "delta_perplexity", change));
  cells.push_back(of(row, "kl_mean", significant));
  cells.push_back(of(row, "kl_p99", significant));
  cells.push_back(of(row, "top1_agreement", share));
}

}  // namespace

Table ab_table(const Json& report) {
  Table table{"ab",
              "Recipes side by side",
              "Held: bytes of the cache at the last scored token of a window. Bits a value and compression "
              "count everything held. Perplexity, its change and KL are against the dense f32 base.",
              {{"recipe", false},
               {"held"},
               {"bits/value"},
               {"compression"},
               {"perplexity"},
               {"Δ ppl"},
               {"mean KL"},
               {"KL 99%"},
               {"top-1"}},
              {}};
  const bool timed = std::ranges::any_of(
      ab_rows(report), [](const Json& row) { return !std::isnan(number_at(row, "decode_tokens_per_s")); });
  if (timed) table.columns.push_back({"decode tok/s"});
  table.columns.push_back({"effect", false});
  for (const Json& row : ab_rows(report)) {
    std::vector<Cell> cells = {text(text_at(row, "recipe")), of(row, "bytes_held", bytes),
                               of(row, "bits_per_value", digits2), of(row, "compression", times)};
    add_quality(cells, row);
    if (timed)
      cells.push_back(
          {format_rate(number_at(row, "decode_tokens_per_s")), number_at(row, "decode_tokens_per_s")});
    cells.push_back(text(text_at(row, "effect")));
    table.rows.push_back(std::move(cells));
  }
  return table;
}

Table ab_interval_table(const Json& report) {
  Table table{"ab-intervals",
              "Intervals and tails",
              "95% intervals of a moving-block bootstrap over the scored tokens; KL in nats.",
              {{"recipe", false},
               {"Δ perplexity"},
               {"mean KL"},
               {"median"},
               {"99%"},
               {"99.9%"},
               {"max"},
               {"top-1 agreement"},
               {"mean Δp"}},
              {}};
  for (const Json& row : ab_rows(report))
    table.rows.push_back({text(text_at(row, "recipe")), row_estimate(row, "delta_perplexity", change),
                          row_estimate(row, "kl_mean", significant), of(row, "kl_median", significant),
                          of(row, "kl_p99", significant), of(row, "kl_p999", significant),
                          of(row, "kl_max", significant), row_estimate(row, "top1_agreement", share),
                          of(row, "delta_p_mean", significant)});
  return table;
}

Table ab_noise_table(const Json& report) {
  Table table{
      "ab-noise",
      "Noise floor",
      "What two exact caches differ by: figures of this size are rounding, not the recipe.",
      {{"", false}, {"step"}, {"perplexity"}, {"Δ ppl"}, {"mean KL"}, {"KL 99%"}, {"top-1"}, {"KL max"}},
      {}};
  for (const Json& row : report.at("ab").at("noise_floor")) {
    std::vector<Cell> cells = {text(fmt::format("{}, {}", text_at(row, "name"), text_at(row, "recipe"))),
                               of(row, "chunk_tokens", count)};
    add_quality(cells, row);
    cells.push_back(of(row, "kl_max", significant));
    table.rows.push_back(std::move(cells));
  }
  return table;
}

Table ab_difference_table(const Json& report) {
  Table table{
      "ab-differences",
      "Differences of recipes",
      "First less second, on the same tokens, with paired 95% intervals. An interval that holds 0 shows no "
      "difference.",
      {{"first", false}, {"second", false}, {"ln perplexity ratio"}, {"mean KL"}, {"top-1 agreement"}},
      {}};
  for (const Json& row : report.at("ab").at("differences"))
    table.rows.push_back({text(text_at(row, "a")), text(text_at(row, "b")),
                          estimate(row, "log_perplexity_ratio", significant),
                          estimate(row, "kl_mean", significant), estimate(row, "top1_agreement", share)});
  return table;
}

Table ab_equal_bytes_table(const Json& report) {
  Table table{
      "ab-equal-bytes",
      "At equal bytes",
      "The recipe less the curve of recipes that differ in numbers alone, interpolated at the recipe's "
      "bytes between those that no other of the curve beats; below 0 the recipe is better.",
      {{"recipe", false}, {"held"}, {"curve", false}, {"points"}, {"ln perplexity ratio"}, {"mean KL"}},
      {}};
  for (const Json& row : report.at("ab").at("equal_bytes"))
    table.rows.push_back({text(text_at(row, "recipe")), of(row, "bytes_held", bytes),
                          text(text_at(row, "curve")), of(row, "points", count),
                          estimate(row, "log_perplexity_ratio", significant),
                          estimate(row, "kl_mean", significant)});
  return table;
}

Table ab_against_bases_table(const Json& report) {
  Table table{
      "ab-against-bases",
      "Merging beside the eviction underneath",
      "The recipe less the one that drops the tokens that it merges, on the same scored tokens; below 0 "
      "of KL merging is better. Merged tokens are those of all windows, layers and KV heads.",
      {{"merges", false},
       {"evicts", false},
       {"held"},
       {"held, evicting"},
       {"merged"},
       {"ln perplexity ratio"},
       {"mean KL"},
       {"top-1 agreement"}},
      {}};
  const auto rows = report.at("ab").find("against_bases");
  if (rows == report.at("ab").end()) return table;
  for (const Json& row : *rows)
    table.rows.push_back({text(text_at(row, "recipe")), text(text_at(row, "base")),
                          of(row, "bytes_held", bytes), of(row, "base_bytes_held", bytes),
                          of(row, "merged_tokens", count), estimate(row, "log_perplexity_ratio", significant),
                          estimate(row, "kl_mean", significant), estimate(row, "top1_agreement", share)});
  return table;
}

Table ab_bytes_table(const Json& report) {
  Table table{
      "ab-bytes",
      "Where the bytes are",
      "At the last scored token, mean over the windows; over time: bits a value with bytes and tokens "
      "summed over all steps. Workspace and peak are not in what is held.",
      {{"recipe", false},
       {"held"},
       {"payload"},
       {"scales"},
       {"side data"},
       {"tables"},
       {"slack"},
       {"workspace"},
       {"peak"},
       {"bits/value"},
       {"over time"}},
      {}};
  for (const Json& row : ab_rows(report)) {
    const Json& ledger = row.at("ledger");
    std::vector<Cell> cells = {text(text_at(row, "recipe")), of(row, "bytes_held", bytes)};
    for (const char* part : {"payload", "scales", "side", "tables", "slack", "workspace", "peak"})
      cells.push_back(of(ledger, part, bytes));
    cells.push_back(of(row, "bits_per_value", digits3));
    cells.push_back(of(row, "bits_per_value_over_time", digits3));
    table.rows.push_back(std::move(cells));
  }
  return table;
}

Table ab_layer_error_table(const Json& report) {
  Table table{
      "ab-layer-error",
      "Error of the layers",
      "Relative L2 error of keys and of values that are still held at the last scored token, against "
      "the dense f32 base, over all windows: the median of the layers and the worst one. Gone: tokens "
      "that were dropped or folded into others, mean of the layers.",
      {{"recipe", false},
       {"K median"},
       {"K worst"},
       {"layer"},
       {"V median"},
       {"V worst"},
       {"layer"},
       {"gone"}},
      {}};
  for (const Json& row : ab_rows(report)) {
    std::vector<Cell> cells = {text(text_at(row, "recipe"))};
    for (const char* key : {"k", "v"}) {
      const std::vector<double> errors = layer_errors(row, key);
      const Spread spread = spread_of(errors);
      cells.push_back({significant(spread.median), spread.median});
      cells.push_back({significant(spread.most), spread.most});
      cells.push_back({count(spread.place), spread.place});
    }
    const double gone = mean_of(layer_errors(row, "missing"));
    cells.push_back({share(gone), gone});
    if (!layer_errors(row, "k").empty()) table.rows.push_back(std::move(cells));
  }
  return table;
}

Table ab_time_table(const Json& report) {
  Table table{
      "ab-time",
      "Time",
      "Each recipe alone, medians of the runs; a step is one decoded token at the context, compression "
      "included.",
      {{"recipe", false},
       {"prefill tok/s"},
       {"decode tok/s"},
       {"first token"},
       {"step"},
       {"step 99%"},
       {"context"},
       {"runs"}},
      {}};
  for (const Json& row : ab_rows(report)) {
    const Json& timing = row.at("timing");
    if (timing.is_null()) continue;
    table.rows.push_back({text(text_at(row, "recipe")), of(row, "prefill_tokens_per_s", format_rate),
                          of(row, "decode_tokens_per_s", format_rate),
                          of(timing, "first_token_ms", milliseconds),
                          of(timing, "step_median_ms", milliseconds), of(timing, "step_p99_ms", milliseconds),
                          of(timing, "context", count), of(timing, "runs", count)});
  }
  return table;
}

Table ab_turn_table(const Json& report) {
  Table table{"ab-turns",
              "Turn by turn",
              "Each turn reads what the recipe left of the ones before.",
              {{"recipe", false},
               {"turn"},
               {"tokens"},
               {"perplexity"},
               {"Δ ppl"},
               {"mean KL"},
               {"KL 99%"},
               {"top-1"}},
              {}};
  for (const Json& row : ab_rows(report))
    for (const Json& turn : row.at("by_turn")) {
      std::vector<Cell> cells = {text(text_at(row, "recipe")), of(turn, "turn", count),
                                 of(turn, "tokens", count)};
      add_quality(cells, turn);
      table.rows.push_back(std::move(cells));
    }
  return table;
}

Table ab_window_table(const Json& report) {
  constexpr std::size_t kShown = 3;  // of each recipe
  Table table{
      "ab-windows",
      "Worst windows",
      "The windows of the text in which a recipe's mean KL is largest; every window is in report.json.",
      {{"recipe", false},
       {"window"},
       {"scored"},
       {"held"},
       {"perplexity"},
       {"base's"},
       {"mean KL"},
       {"top-1"}},
      {}};
  for (const Json& row : ab_rows(report)) {
    if (text_is(row, "effect", "baseline")) continue;
    std::vector<std::pair<double, const Json*>> worst;
    for (const Json& window : row.at("windows"))
      if (const double kl = number_at(window, "kl_mean"); std::isfinite(kl)) worst.emplace_back(kl, &window);
    if (worst.size() < 2) continue;
    std::stable_sort(worst.begin(), worst.end(),
                     [](const auto& a, const auto& b) { return a.first > b.first; });
    worst.resize(std::min(worst.size(), kShown));
    for (const auto& [kl, window] : worst) {
      const auto number =
          static_cast<double>(window - row.at("windows").get_ptr<const Json::array_t*>()->data() + 1);
      table.rows.push_back({text(text_at(row, "recipe")),
                            {count(number), number},
                            of(*window, "scored_tokens", count),
                            of(*window, "bytes_held", bytes),
                            of(*window, "perplexity", perplexity),
                            of(*window, "perplexity_base", perplexity),
                            of(*window, "kl_mean", significant),
                            of(*window, "top1_agreement", share)});
    }
  }
  return table;
}

std::vector<std::string> ab_protocol_sentences(const Json& report) {
  const Json& ab = report.at("ab");
  const Json& protocol = ab.at("protocol");
  const auto counted = [&](const char* key) { return format_count(number_at(protocol, key)); };
  const bool one_window = number_at(protocol, "windows") == 1;
  return {fmt::format("{} tokens of {} scored, in {} of {}.", counted("tokens"),
                      one_line(text_at(ab.at("text"), "file"), 120),
                      one_window ? "a window" : counted("windows") + " windows", counted("context")),
          fmt::format("Steps of {} tokens, pages of {}, weights {}, base {} with a perplexity of {}.",
                      counted("chunk_tokens"), counted("page_size"),
                      one_line(text_at(protocol, "weights"), 20), one_line(text_at(protocol, "base"), 40),
                      perplexity(number_at(ab.at("base"), "perplexity")))};
}

}  // namespace kva
