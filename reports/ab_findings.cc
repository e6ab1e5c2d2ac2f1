#include "reports/ab_findings.h"

#include <fmt/format.h>

#include <algorithm>
#include <array>
#include <cmath>
#include <map>
#include <nlohmann/json.hpp>
#include <set>
#include <utility>

#include "reports/ab_view.h"
#include "reports/text_format.h"

namespace kva {
namespace {

constexpr double kCloseEnough = 0.01;    // change of perplexity that "close" means
constexpr std::size_t kNameBytes = 120;  // of a recipe in a sentence
constexpr std::size_t kSentences = 24;   // recipes that have one; the table has all
constexpr std::size_t kListed = 8;       // comparisons that are spelt out
constexpr double kGiB = 1073741824.0;

std::string name_of(const Json& row) { return short_recipe(row, kNameBytes); }

std::string times(double value) { return format_number(value, 2) + "×"; }

std::string with_bounds(const Interval& interval, std::string (*format)(double)) {
  if (std::isnan(interval.low)) return format(interval.value) + " (no interval)";
  return fmt::format("{} [{}, {}]", format(interval.value), format(interval.low), format(interval.high));
}

std::string significant(double value) { return format_significant(value); }
std::string change(double value) { return format_change(value); }

bool saves(const Json& report, const Json& row) {
  return number_at(row, "bytes_held") < number_at(ab_rows(report).front(), "bytes_held");
}

Finding baseline_finding(const Json& report) {
  const Json& row = ab_rows(report).front();
  const Json& base = report.at("ab").at("base");
  const std::string held = format_bytes(number_at(row, "bytes_held"));
  return {
      held,
      fmt::format("in {} pages for {} tokens, the baseline", text_at(row, "recipe"),
                  format_count(number_at(row, "tokens_seen"))),
      fmt::format(
          "{} pages hold {} for {} tokens, {} bits a number with tables and slack; every recipe is judged "
          "on the same {} tokens against {} pages, whose perplexity is {}.",
          name_of(row), held, format_count(number_at(row, "tokens_seen")),
          format_number(number_at(row, "bits_per_value"), 2), format_count(number_at(row, "tokens")),
          one_line(text_at(base, "recipe"), 40), format_number(number_at(base, "perplexity"), 3))};
}

// The most compression of those that save bytes and `pass`; null where there is none.
template <typename Pass>
const Json* most_compressed(const Json& report, const Pass& pass) {
  const Json* best = nullptr;
  for (const Json& row : ab_rows(report))
    if (saves(report, row) && pass(row) &&
        (!best || number_at(row, "compression") > number_at(*best, "compression")))
      best = &row;
  return best;
}

Finding close_finding(const Json& report) {
  const std::string bound = format_share(kCloseEnough, 0);
  const Json* best = most_compressed(
      report, [](const Json& row) { return row_interval(row, "delta_perplexity").high <= kCloseEnough; });
  const bool judged = most_compressed(
      report, [](const Json& row) { return !std::isnan(row_interval(row, "delta_perplexity").high); });
  if (!judged && most_compressed(report, [](const Json&) { return true; }))
    return {
        "no interval", "of perplexity: too few tokens were scored",
        fmt::format("Too few tokens were scored for intervals: which recipe surely keeps perplexity within "
                    "+{} cannot be said.",
                    bound)};
  if (!best)
    return {"none", fmt::format("saves bytes with a perplexity surely within +{}", bound),
            fmt::format(
                "No recipe here saves bytes while the upper end of its interval keeps perplexity within +{}.",
                bound)};
  return {
      times(number_at(*best, "compression")),
      fmt::format("most compression with a perplexity surely within +{}: {}", bound, name_of(*best)),
      fmt::format(
          "Of the recipes whose perplexity is within +{} by the upper end of its interval, {} saves most: "
          "compression {}, {} bits a number.",
          bound, name_of(*best), times(number_at(*best, "compression")),
          format_number(number_at(*best, "bits_per_value"), 2))};
}

Finding most_finding(const Json& report) {
  const Json* best = most_compressed(report, [](const Json&) { return true; });
  if (!best) return {};
  return {times(number_at(*best, "compression")),
          fmt::format("most compression of all: {}, perplexity {}", name_of(*best),
                      format_change(number_at(*best, "delta_perplexity"))),
          ""};
}

Finding noise_finding(const Json& report) {
  std::string parts;
  for (const Json& row : report.at("ab").at("noise_floor"))
    parts += fmt::format("{}{} ({}, steps of {})", parts.empty() ? "" : " and ",
                         format_significant(number_at(row, "kl_mean")), one_line(text_at(row, "recipe"), 40),
                         format_count(number_at(row, "chunk_tokens")));
  if (parts.empty()) return {};
  return {format_significant(noise_floor_kl(report)), "mean KL between exact caches: the noise floor",
          fmt::format(
              "Noise floor: exact caches differ from the base by a mean KL of {}; figures of that size are "
              "rounding, not the recipe.",
              parts)};
}

std::string saved(const Json& report, const Json& row) {
  const double held = number_at(row, "bytes_held"),
               baseline = number_at(ab_rows(report).front(), "bytes_held");
  if (held == baseline) return "holds as much as the baseline";
  return fmt::format("holds {}, {} {} than the baseline ({} bits a number, compression {})",
                     format_bytes(held), format_share(std::abs(held / baseline - 1)),
                     held < baseline ? "less" : "more", format_number(number_at(row, "bits_per_value"), 2),
                     times(number_at(row, "compression")));
}

Finding row_finding(const Json& report, const Json& row) {
  const Interval kl = row_interval(row, "kl_mean"), perplexity = row_interval(row, "delta_perplexity");
  const double floor = noise_floor_kl(report);
  std::string sentence = fmt::format(
      "{} {}. Mean KL {}{}; perplexity {}{}; top-1 agreement {}.", name_of(row), saved(report, row),
      with_bounds(kl, significant), kl.value <= floor ? ", no more than the noise floor" : "",
      with_bounds(perplexity, change), perplexity.holds_zero() ? ", no change shown" : "",
      format_share(number_at(row, "top1_agreement"), 2));
  if (number_at(row, "nonfinite_tokens") > 0)
    sentence += fmt::format(" At {} tokens its loss or KL was no finite number.",
                            format_count(number_at(row, "nonfinite_tokens")));
  return {"", "", sentence};
}

void row_findings(const Json& report, std::vector<Finding>& findings) {
  std::string idle;
  std::size_t spelt = 0, left_out = 0;
  bool baseline = true;
  for (const Json& row : ab_rows(report)) {
    if (text_is(row, "effect", "no effect")) idle += (idle.empty() ? "" : " · ") + name_of(row);
    if (std::exchange(baseline, false) || text_is(row, "effect", "no effect")) continue;
    if (spelt++ < kSentences)
      findings.push_back(row_finding(report, row));
    else
      ++left_out;
  }
  if (left_out > 0) findings.push_back({"", "", fmt::format("{} more recipes are in the table.", left_out)});
  if (!idle.empty())
    findings.push_back(
        {"", "", fmt::format("No effect, neither a byte nor a logit differs from the baseline: {}.", idle)});
}

// What merging adds to the eviction underneath.
void merging_findings(const Json& report, std::vector<Finding>& findings) {
  const auto rows = report.at("ab").find("against_bases");
  if (rows == report.at("ab").end()) return;
  std::size_t spelt = 0;
  for (const Json& row : *rows) {
    if (spelt++ == kListed) return;
    const Interval kl = estimate_of(row, "kl_mean");
    const char* verdict = kl.low > 0    ? "has a higher mean KL"
                          : kl.high < 0 ? "has a lower mean KL"
                                        : "shows no other mean KL";
    findings.push_back(
        {"", "",
         fmt::format("{} merges {} tokens that {} drops and {}: the difference is {}; it holds {}, that {}.",
                     name_of(row), format_count(number_at(row, "merged_tokens")),
                     one_line(text_at(row, "base"), kNameBytes), verdict, with_bounds(kl, significant),
                     format_bytes(number_at(row, "bytes_held")),
                     format_bytes(number_at(row, "base_bytes_held")))});
  }
}

std::string passkey_share(const Json& row) {
  return fmt::format("{} {} [{}, {}]", name_of(row), format_share(number_at(row, "accuracy")),
                     format_share(number_at(row, "low")), format_share(number_at(row, "high")));
}

// Where the base fails, nothing is said of recipes.
void passkey_findings(const Json& report, std::vector<Finding>& findings) {
  const Json* passkey = passkey_of(report);
  if (!passkey) return;
  const double informative = number_at(*passkey, "informative_cells");
  const std::string needed = format_share(number_at(*passkey, "informative_from"), 0);
  if (informative == 0) {
    findings.push_back({"", "",
                        fmt::format("Passkey retrieval tells nothing of recipes here: at no length and depth "
                                    "does the dense base answer {} of the trials exactly.",
                                    needed)});
    return;
  }
  std::string rows;
  std::size_t spelt = 0;
  for (const Json& row : passkey->at("rows"))
    if (spelt++ < kListed) rows += (rows.empty() ? "" : " · ") + passkey_share(row);
  findings.push_back(
      {"", "",
       fmt::format("Passkey retrieval, asked after compression, at the {} of {} lengths and depths where the "
                   "dense base answers at least {}: exact answers {}{}.",
                   format_count(informative), passkey->at("cells").size(), needed, rows,
                   spelt > kListed ? "; the table has all" : "")});
}

// Curves whose rows all do nothing stand for the baseline, which is no rival.
std::set<std::string> idle_families(const Json& report) {
  std::set<std::string> idle, active;
  for (const Json& row : ab_rows(report))
    (text_is(row, "effect", "no effect") || text_is(row, "effect", "baseline") ? idle : active)
        .insert(text_at(row, "family"));
  for (const std::string& family : active) idle.erase(family);
  return idle;
}

// Comparisons at equal bytes that say something new: of two recipes with the same bytes only one way round.
std::vector<const Json*> comparisons(const Json& report) {
  const std::set<std::string> idle = idle_families(report);
  std::map<std::string, std::string> families;
  for (const Json& row : ab_rows(report)) families[text_at(row, "recipe")] = text_at(row, "family");
  std::set<std::array<std::string, 3>> said;
  std::vector<const Json*> rows;
  for (const Json& row : report.at("ab").at("equal_bytes")) {
    const std::string family = families[text_at(row, "recipe")], curve = text_at(row, "curve");
    if (idle.count(family) > 0 || idle.count(curve) > 0) continue;
    const std::string bytes = fmt::format("{:.0f}", number_at(row, "bytes_held"));
    if (said.count({curve, family, bytes}) > 0) continue;
    said.insert({family, curve, bytes});
    rows.push_back(&row);
  }
  return rows;
}

// Who wins at equal bytes, where the interval of the difference says that somebody does.
void equal_bytes_findings(const Json& report, std::vector<Finding>& findings) {
  std::string open;
  std::size_t spelt = 0, untold = 0;
  for (const Json* row : comparisons(report)) {
    const Interval kl = estimate_of(*row, "kl_mean");
    const std::string recipe = short_recipe(*row, kNameBytes),
                      curve = one_line(text_at(*row, "curve"), kNameBytes);
    if (!(kl.low > 0 || kl.high < 0)) {
      if (untold++ < kListed) open += fmt::format("{}{} beside {}", open.empty() ? "" : " · ", recipe, curve);
      continue;
    }
    if (spelt++ < kListed)
      findings.push_back(
          {"", "",
           fmt::format("At the same bytes ({}) {} has a {} mean KL than {}: the difference is {}.",
                       format_bytes(number_at(*row, "bytes_held")), recipe, kl.high < 0 ? "lower" : "higher",
                       curve, with_bounds(kl, significant))});
  }
  if (spelt > kListed)
    findings.push_back(
        {"", "", fmt::format("{} more comparisons at equal bytes are in the table.", spelt - kListed)});
  if (!open.empty())
    findings.push_back(
        {"", "",
         fmt::format("At the same bytes no difference of mean KL is shown (the interval holds 0): "
                     "{}{}.",
                     open, untold > kListed ? " and more" : "")});
}

Finding capacity_finding(const Json& report) {
  const Json* best = most_compressed(
      report, [](const Json& row) { return row_interval(row, "delta_perplexity").high <= kCloseEnough; });
  const Json& baseline = ab_rows(report).front();
  const Json& budgets = baseline.at("capacity").at("budgets");
  if (!best || budgets.empty() || best->at("capacity").at("budgets").empty()) return {};
  const Json& now = best->at("capacity").at("budgets").front();
  return {"", "",
          fmt::format("{:g} GiB for the cache holds {} tokens in {} and {} in {}.",
                      number_at(budgets.front(), "budget_bytes") / kGiB,
                      format_count(number_at(budgets.front(), "tokens")), name_of(baseline),
                      format_count(number_at(now, "tokens")), name_of(*best))};
}

}  // namespace

std::vector<Finding> ab_findings(const Json& report) {
  std::vector<Finding> findings = {baseline_finding(report), close_finding(report), most_finding(report),
                                   capacity_finding(report), noise_finding(report)};
  row_findings(report, findings);
  equal_bytes_findings(report, findings);
  merging_findings(report, findings);
  passkey_findings(report, findings);
  std::erase_if(findings, [](const Finding& one) { return one.sentence.empty() && one.value.empty(); });
  return findings;
}

}  // namespace kva
