#include "reports/findings.h"

#include <fmt/format.h>

#include <algorithm>
#include <cmath>
#include <nlohmann/json.hpp>

#include "reports/report_view.h"
#include "reports/set_totals.h"
#include "reports/text_format.h"

namespace kva {
namespace {

Finding cache_finding(const Json& report) {
  const Json& cache = report.at("cache");
  const SetTotals all = set_totals(report);
  const Json& model = report.at("model");
  const std::string size = format_bytes(number_at(cache, "dense_f16_bytes"));
  return {size, "KV cache, dense in f16",
          fmt::format("The KV cache of {} prompts ({} tokens) takes {} in dense f16; stored as {} it is {} "
                      "bytes a token. It "
                      "was cut into {} pages of {} tokens for each of {} layers x {} KV heads x 2 sides.",
                      format_count(all.prompts), format_count(all.tokens), size,
                      text_at(report.at("provenance"), "recipe"),
                      format_count(number_at(model, "kv_bytes_per_token")), format_count(all.pages),
                      format_count(number_at(cache, "page_tokens")), format_count(number_at(model, "layers")),
                      format_count(number_at(model, "kv_heads")))};
}

// What the shuffled control makes of a gain.
std::string against_control(const Freed& freed) {
  const std::string control =
      fmt::format("{} ({})", format_bytes(freed.shuffled_bytes), format_share(freed.shuffled_share()));
  if (freed.bytes <= 0 && freed.shuffled_bytes <= 0) return "nothing in shuffled tokens either";
  if (freed.shuffled_bytes >= freed.bytes)
    return fmt::format("shuffled tokens give {}, as much or more, so this is not pages that repeat", control);
  return fmt::format("shuffled tokens give {}, so {} is there because pages repeat", control,
                     format_bytes(freed.bytes - freed.shuffled_bytes));
}

Finding freed_finding(const Json& report, const std::string& metric, const std::string& test) {
  const double threshold = nearest_threshold(report, kHeadlineCover);
  const auto stored = stored_series(report);
  const Freed freed = freed_pages(report, stored, metric, threshold);
  std::string sides;
  for (const Series& series : stored) {
    const Freed one = freed_pages(report, {series}, metric, threshold);
    sides += fmt::format("{}{} {}", sides.empty() ? "" : ", ", series.label, format_share(one.share()));
  }
  return {fmt::format("{} ({})", format_bytes(freed.bytes), format_share(freed.share())),
          fmt::format("could be freed at {} over {}", metric_label(metric), threshold_key(threshold)),
          fmt::format("{} would free {} of the {} in full pages ({}; {}); {}.", test,
                      format_bytes(freed.bytes), format_bytes(freed.dense_bytes), format_share(freed.share()),
                      sides, against_control(freed))};
}

Finding redundancy_finding(const Json& report) {
  const double threshold = redundancy_threshold(report);
  const double wanted = nearest_threshold(report, 0.9);
  std::string text;
  std::string value;
  for (const Series& series : report_series(report)) {
    const LayerFigure figure = layer_redundancy(report, series, "cosine_centered", threshold);
    text += fmt::format("{}{} {} (shuffled {})", text.empty() ? "" : ", ", series.label,
                        format_share(mean_of(figure.real)), format_share(mean_of(figure.shuffled)));
    if (value.empty() || series.side == "V")
      value +=
          fmt::format("{}{} {}", value.empty() ? "" : " · ", series.side, format_share(mean_of(figure.real)));
  }
  return {value, fmt::format("of pages have a partner over {} (centred cosine)", threshold_key(threshold)),
          fmt::format(
              "{}Pages with at least one partner over {} in centred cosine, averaged over layers: {}.",
              threshold < wanted ? fmt::format("No page has a partner over {}. ", threshold_key(wanted)) : "",
              threshold_key(threshold), text)};
}

Finding top_layer_finding(const Json& report) {
  const double threshold = nearest_threshold(report, kHeadlineCover);
  struct Place {
    Freed freed;
    int layer = -1;
    std::string label;
  } best, least;
  for (const Series& series : stored_series(report)) {
    for (int layer = 0; layer < layer_count(report); ++layer) {
      const Freed freed = freed_pages(report, {series}, "cosine", threshold, layer);
      if (freed.dense_bytes <= 0) continue;
      if (best.layer < 0 || freed.share() > best.freed.share()) best = {freed, layer, series.label};
      if (least.layer < 0 || freed.share() < least.freed.share()) least = {freed, layer, series.label};
    }
  }
  if (best.layer < 0) return {};
  return {fmt::format("layer {} {}", best.layer, best.label), "repeats most",
          fmt::format(
              "{} of layer {} repeats most: {} of its pages could be freed at cosine {} (shuffled {}); {} of "
              "layer {} least, {}.",
              best.label, best.layer, format_share(best.freed.share()), threshold_key(threshold),
              format_share(best.freed.shuffled_share()), least.label, least.layer,
              format_share(least.freed.share()))};
}

Finding adjacent_finding(const Json& report) {
  std::string text;
  std::string value;
  for (const Series& series : report_series(report)) {
    std::vector<double> real;
    std::vector<double> random;
    for (const Json& row : report.at("adjacent_layers")) {
      if (!series.matches(row) || !text_is(row, "scope", "layer") ||
          !text_is(row, "metric", "cosine_centered"))
        continue;
      real.push_back(number_at(row, "mean"));
      random.push_back(number_at(row.at("controls").at("random"), "mean"));
    }
    if (real.empty()) continue;
    text += fmt::format("{}{} {} (random pairs {})", text.empty() ? "" : ", ", series.label,
                        format_number(mean_of(real), 2), format_number(mean_of(random), 2));
    if (value.empty()) value = format_number(mean_of(real), 2);
  }
  if (text.empty()) return {};
  return {value, "centred cosine of the same page in neighbouring layers (K)",
          fmt::format("The same page in neighbouring layers, mean centred cosine: {}.", text)};
}

Finding cluster_finding(const Json& report) {
  std::string text;
  for (const Series& series : stored_series(report)) {
    std::vector<double> explained;
    std::vector<double> shuffled;
    std::vector<double> error;
    double freed = 0;
    double dense = 0;
    for (const Json& row : report.at("clusters")) {
      if (!series.matches(row)) continue;
      explained.push_back(number_at(row, "explained"));
      shuffled.push_back(number_at(row, "explained_shuffled"));
      const Json& sharing = row.at("sharing");
      error.push_back(number_at(sharing, "relative_error"));
      freed += number_at(sharing, "freed_bytes");
      dense += number_at(sharing, "dense_bytes");
    }
    if (explained.empty()) continue;
    text += fmt::format("{}{} {} explained (shuffled {}), {} of {} freed at a relative error of {}",
                        text.empty() ? "" : "; ", series.label, format_share(mean_of(explained)),
                        format_share(mean_of(shuffled)), format_bytes(freed), format_bytes(dense),
                        format_number(mean_of(error), 2));
  }
  if (text.empty()) return {};
  return {"", "", fmt::format("k-means clusters with centroids and indices charged: {}.", text)};
}

Finding duplicate_finding(const Json& report) {
  double pages = 0;
  double duplicates = 0;
  double bytes = 0;
  double shuffled = 0;
  for (const Json& row : report.at("duplicates")) {
    pages += number_at(row, "pages");
    duplicates += number_at(row, "duplicates");
    bytes += number_at(row, "bytes");
    shuffled += number_at(row, "shuffled_duplicates");
  }
  if (pages <= 0) return {};
  return {
      format_count(duplicates), "exact duplicate pages",
      fmt::format("Exact duplicates: {} of {} pages ({}); shuffled tokens give {}.", format_count(duplicates),
                  format_count(pages), format_bytes(bytes), format_count(shuffled))};
}

Finding set_finding(const Json& report) {
  const Json& rows = report.at("set_differences");
  if (rows.empty()) return {};
  int found = 0;
  const Json* largest = nullptr;
  for (const Json& row : rows) {
    if (text_is(row, "verdict", "no difference found")) continue;
    ++found;
    const bool counts = text_is(row, "metric", "cosine_centered") && text_is(row, "statistic", "mean");
    if (counts &&
        (!largest || std::abs(number_at(row, "difference")) > std::abs(number_at(*largest, "difference"))))
      largest = &row;
  }
  std::string text =
      fmt::format("Between prompt sets, {} of {} comparisons show a difference and {} show none", found,
                  rows.size(), rows.size() - static_cast<std::size_t>(found));
  if (largest) {
    std::string label = text_at(*largest, "side");
    for (const Series& series : report_series(report))
      if (series.matches(*largest)) label = series.label;
    text += fmt::format(
        "; the largest in mean centred cosine: {} {} than {} by {} [{}, {}], {}",
        one_line(text_at(*largest, "a"), 40), text_at(*largest, "verdict"),
        one_line(text_at(*largest, "b"), 40), format_number(std::abs(number_at(*largest, "difference")), 3),
        format_number(number_at(*largest, "low"), 3), format_number(number_at(*largest, "high"), 3), label);
  }
  return {fmt::format("{} of {}", found, rows.size()), "comparisons between sets show a difference",
          text + "."};
}

}  // namespace

std::vector<Finding> report_findings(const nlohmann::ordered_json& report) {
  const std::string threshold = threshold_key(nearest_threshold(report, kHeadlineCover));
  std::vector<Finding> findings = {
      cache_finding(report),
      freed_finding(report, "cosine",
                    fmt::format("Keeping one representative for pages over {} in plain cosine", threshold)),
      freed_finding(
          report, "l2_similarity",
          fmt::format("The stricter test, relative L2 similarity over {} (pages that nearly coincide),",
                      threshold)),
      redundancy_finding(report),
      top_layer_finding(report),
      adjacent_finding(report),
      cluster_finding(report),
      duplicate_finding(report),
      set_finding(report)};
  std::erase_if(findings, [](const Finding& finding) { return finding.sentence.empty(); });
  return findings;
}

}  // namespace kva
