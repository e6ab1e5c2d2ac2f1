#include "reports/report_view.h"

#include <fmt/format.h>

#include <algorithm>
#include <cmath>
#include <limits>
#include <nlohmann/json.hpp>

namespace kva {
namespace {

constexpr double kNaN = std::numeric_limits<double>::quiet_NaN();

double share_at(const Json& row, const char* member, const std::string& key) {
  const auto found = row.find(member);
  return found != row.end() && found->is_object() ? number_at(*found, key.c_str()) : kNaN;
}

Series make_series(const Json& report, const std::string& side, const std::string& basis) {
  Series series{side, basis, side, side == "K" ? "k" : "v"};
  if (side == "K" && text_is(report.at("model"), "position_encoding", "rope")) {
    series.label = basis == "rotated" ? "K after RoPE"
                   : basis == "plain" ? "K before RoPE"
                                      : "K page-relative";
    series.slug = "k-" + basis;
  }
  return series;
}

}  // namespace

double number_at(const Json& object, const char* key) {
  const auto found = object.find(key);
  return found != object.end() && found->is_number() ? found->get<double>() : kNaN;
}

std::string text_at(const Json& object, const char* key) {
  const auto found = object.find(key);
  return found != object.end() && found->is_string() ? found->get<std::string>() : "";
}

bool text_is(const Json& object, const char* key, std::string_view value) {
  const auto found = object.find(key);
  if (found == object.end() || !found->is_string()) return value.empty();
  return found->get_ref<const std::string&>() == value;
}

double mean_of(const std::vector<double>& values) {
  double sum = 0;
  int count = 0;
  for (const double value : values) {
    if (std::isnan(value)) continue;
    sum += value;
    ++count;
  }
  return count > 0 ? sum / count : kNaN;
}

bool Series::matches(const Json& row) const {
  return text_is(row, "side", side) && text_is(row, "basis", basis);
}

std::vector<Series> report_series(const Json& report) {
  std::vector<Series> all;
  for (const Json& row : report.at("similarity")) {
    if (!text_is(row, "scope", "layer")) continue;
    if (std::any_of(all.begin(), all.end(), [&](const Series& known) { return known.matches(row); }))
      continue;
    all.push_back(make_series(report, text_at(row, "side"), text_at(row, "basis")));
  }
  const std::string stored = text_at(report.at("cache"), "key_basis");
  const auto rank = [&](const Series& series) {
    return series.side == "V" ? 2 : series.basis == stored ? 0 : 1;
  };
  std::stable_sort(all.begin(), all.end(),
                   [&](const Series& a, const Series& b) { return rank(a) < rank(b); });
  return all;
}

std::vector<Series> stored_series(const Json& report) {
  std::vector<Series> stored;
  for (const Series& series : report_series(report))
    if (stored.empty() || stored.back().side != series.side) stored.push_back(series);
  return stored;
}

std::string threshold_key(double threshold) { return fmt::format("{:g}", threshold); }

double nearest_threshold(const Json& report, double wanted) {
  double best = wanted;
  double distance = std::numeric_limits<double>::infinity();
  for (const Json& threshold : report.at("thresholds")) {
    const double gap = std::abs(threshold.get<double>() - wanted);
    if (gap < distance) best = threshold.get<double>();
    distance = std::min(distance, gap);
  }
  return best;
}

double redundancy_threshold(const Json& report) {
  constexpr double kWanted = 0.9;
  const double first = nearest_threshold(report, kWanted);
  auto thresholds = report.at("thresholds").get<std::vector<double>>();
  std::sort(thresholds.rbegin(), thresholds.rend());
  const auto series = report_series(report);
  for (const double threshold : thresholds) {
    if (threshold > first) continue;
    for (const Series& one : series)
      for (const double share : layer_redundancy(report, one, "cosine_centered", threshold).real)
        if (share > 0) return threshold;
  }
  return first;
}

const Json* find_similarity(const Json& report, int layer, const Series& series, const std::string& metric,
                            const std::string& group) {
  for (const Json& row : report.at("similarity")) {
    if (number_at(row, "layer") == layer && series.matches(row) && text_is(row, "scope", "layer") &&
        text_is(row, "metric", metric) && text_is(row, "group", group))
      return &row;
  }
  return nullptr;
}

LayerFigure layer_redundancy(const Json& report, const Series& series, const std::string& metric,
                             double threshold, const std::string& group) {
  const auto layers = static_cast<std::size_t>(layer_count(report));
  const std::string key = threshold_key(threshold);
  LayerFigure figure{std::vector<double>(layers, kNaN), std::vector<double>(layers, kNaN),
                     std::vector<double>(layers, kNaN)};
  for (const Json& row : report.at("similarity")) {
    const double layer = number_at(row, "layer");
    if (!(layer < static_cast<double>(layers)) || !series.matches(row) || !text_is(row, "scope", "layer") ||
        !text_is(row, "metric", metric) || !text_is(row, "group", group))
      continue;
    const auto at = static_cast<std::size_t>(layer);
    figure.real[at] = share_at(row, "redundancy", key);
    figure.random[at] = share_at(row.at("controls").at("random"), "redundancy", key);
    figure.shuffled[at] = share_at(row.at("controls").at("shuffled"), "redundancy", key);
  }
  return figure;
}

double Freed::share() const { return dense_bytes > 0 ? bytes / dense_bytes : kNaN; }
double Freed::shuffled_share() const { return dense_bytes > 0 ? shuffled_bytes / dense_bytes : kNaN; }

Freed freed_pages(const Json& report, const std::vector<Series>& series, const std::string& metric,
                  double threshold, int layer) {
  Freed sum;
  for (const Json& row : report.at("opportunity")) {
    if (!text_is(row, "metric", metric) || number_at(row, "threshold") != threshold) continue;
    if (layer >= 0 && number_at(row, "layer") != layer) continue;
    if (std::none_of(series.begin(), series.end(), [&](const Series& one) { return one.matches(row); }))
      continue;
    const double pages = number_at(row, "pages");
    const double dense_bytes = number_at(row, "dense_bytes");
    sum.bytes += number_at(row, "freed_bytes");
    sum.dense_bytes += dense_bytes;
    sum.pages += number_at(row, "freed_pages");
    sum.all_pages += pages;
    if (pages > 0) sum.shuffled_bytes += number_at(row, "shuffled_freed_pages") * dense_bytes / pages;
  }
  return sum;
}

int layer_count(const Json& report) { return report.at("model").at("layers").get<int>(); }

std::vector<std::string> set_names(const Json& report) {
  std::vector<std::string> names;
  for (const Json& set : report.at("sets")) names.push_back(text_at(set, "name"));
  return names;
}

std::string metric_label(const std::string& metric) {
  if (metric == "cosine_centered") return "centred cosine";
  if (metric == "l2_similarity") return "relative L2 similarity";
  if (metric == "hamming") return "Hamming similarity";
  if (metric == "jaccard") return "Jaccard similarity";
  return metric;
}

}  // namespace kva
