// Figures made of lines: distributions, layers, opportunities, growth.
#include <fmt/format.h>

#include <algorithm>
#include <cmath>
#include <nlohmann/json.hpp>

#include "reports/findings.h"
#include "reports/plot_figures.h"
#include "reports/report_view.h"
#include "reports/text_format.h"

namespace kva {
namespace {

constexpr int kWidth = 1600;
constexpr int kHeight = 940;

using Rows = std::vector<std::vector<double>>;

std::string subtitle_of(const Json& report, const std::string& rest) {
  double pages = 0;
  for (const Json& set : report.at("sets")) pages += number_at(set, "pages");
  return fmt::format("{} · n = {} pages of {} tokens in each layer · {}",
                     one_line(text_at(report.at("model"), "name"), 60), format_count(pages),
                     format_count(number_at(report.at("cache"), "page_tokens")), rest);
}

std::vector<double> sum_histograms(const Json& report, const Series& series, const std::string& metric,
                                   const std::string& group, bool shuffled) {
  std::vector<double> sum;
  for (const Json& row : report.at("similarity")) {
    if (!series.matches(row) || !text_is(row, "scope", "layer") || !text_is(row, "metric", metric) ||
        !text_is(row, "group", group))
      continue;
    const Json& source = shuffled ? row.at("controls").at("shuffled") : row;
    const auto found = source.find("histogram");
    if (found == source.end() || !found->is_array()) continue;
    sum.resize(std::max(sum.size(), found->size()), 0.0);
    for (std::size_t i = 0; i < found->size(); ++i) sum[i] += (*found)[i].get<double>();
  }
  return sum;
}

// Bin centre and share of pairs in percent; empty without pairs.
Rows density(const Json& report, const std::string& metric, const std::vector<double>& counts) {
  double total = 0;
  for (const double count : counts) total += count;
  Rows rows;
  const auto bins = report.at("histogram_bins").find(metric);
  if (total <= 0 || bins == report.at("histogram_bins").end()) return rows;
  const double low = number_at(*bins, "low");
  const double width = (number_at(*bins, "high") - low) / static_cast<double>(counts.size());
  for (std::size_t i = 0; i < counts.size(); ++i)
    rows.push_back({low + (static_cast<double>(i) + 0.5) * width, 100 * counts[i] / total});
  return rows;
}

// The least and greatest similarity where anything is seen.
void extend_range(const Rows& rows, double& low, double& high) {
  for (const auto& row : rows) {
    if (row[1] < 0.02) continue;
    low = std::min(low, row[0]);
    high = std::max(high, row[0]);
  }
}

void distribution_panel(const Json& report, const Series& series, const std::string& metric, int row,
                        int column, FigureScript& figure) {
  std::vector<std::string> parts;
  double low = 1;
  double high = -1;
  const auto draw = [&](const std::string& group, bool shuffled, const std::string& style) {
    const Rows rows = density(report, metric, sum_histograms(report, series, metric, group, shuffled));
    if (rows.empty()) return;
    extend_range(rows, low, high);
    parts.push_back(fmt::format("{} using 1:2 {}", figure.data(rows), style));
  };
  const auto sets = set_names(report);
  for (std::size_t i = 0; i < sets.size(); ++i) {
    draw(sets[i], false,
         fmt::format("with filledcurves y1=0 fs transparent solid 0.10 noborder fc rgb '{}'", set_color(i)));
    draw(sets[i], false, fmt::format("with lines lw 2.6 lc rgb '{}'", set_color(i)));
  }
  draw("all", true, fmt::format("with lines {} lc rgb '{}'", kDashed, kControlColor));
  if (parts.empty()) return;
  figure.panel(row, column, row == 0 ? series.label : "", metric_label(metric) + " of two pages",
               column == 0 ? "share of pairs (%)" : "");
  figure.add(fmt::format("set xrange [{:.3f}:{:.3f}]\nset yrange [0:*]", std::max(-1.0, low - 0.03),
                         std::min(1.0, high + 0.03)));
  figure.plot(parts);
}

Rows layer_means(const Json& report, const Series& series, const std::string& metric) {
  Rows rows;
  for (int layer = 0; layer < layer_count(report); ++layer) {
    const Json* row = find_similarity(report, layer, series, metric);
    if (!row) continue;
    const auto percentile = [&](const char* key) {
      const Json& all = row->at("percentiles");
      return all.is_object() ? number_at(all, key) : NAN;
    };
    rows.push_back({static_cast<double>(layer), number_at(*row, "mean"), percentile("5"), percentile("95"),
                    number_at(row->at("controls").at("shuffled"), "mean"),
                    number_at(row->at("controls").at("random"), "mean")});
  }
  return rows;
}

std::string layer_range(const Json& report) {
  const int last = layer_count(report) - 1;
  return fmt::format("set xrange [-0.4:{}]\nset xtics {} format '%.0f'", last + 0.4,
                     std::max(1, (last + 9) / 10));
}

// Says in the middle of a panel why it is empty.
std::string nothing_label(const std::string& text) {
  return fmt::format("set label 1 {} at graph 0.5, graph 0.5 center textcolor rgb '#6b7280' noenhanced",
                     quote_gnuplot(text));
}

double percent_top(double most) { return most > 0 ? std::min(102.0, 1.08 * most) : 1.0; }

// The most that any kind of page, layer and threshold frees, controls included.
double most_freed(const Json& report, const std::vector<Series>& series, const std::string& metric) {
  double most = 0;
  for (const Series& one : series)
    for (int layer = 0; layer < layer_count(report); ++layer)
      for (const Json& threshold : report.at("thresholds")) {
        const Freed freed = freed_pages(report, {one}, metric, threshold.get<double>(), layer);
        most = std::max({most, freed.bytes, freed.shuffled_bytes});
      }
  return most;
}

struct ByteScale {
  double unit;
  const char* name;
  double top;  // in units
};

ByteScale byte_scale(double most) {
  if (most <= 0) return {1024, "KiB", 1};
  const ByteScale scale = most >= 1048576 ? ByteScale{1048576, "MiB", 0} : ByteScale{1024, "KiB", 0};
  return {scale.unit, scale.name, 1.08 * most / scale.unit};
}

void opportunity_panel(const Json& report, const Series& series, const std::string& metric,
                       const ByteScale& scale, int row, int column, FigureScript& figure) {
  const auto thresholds = report.at("thresholds").get<std::vector<double>>();
  std::vector<std::string> parts;
  double dense = 0;
  bool any = false;
  for (std::size_t i = 0; i < thresholds.size(); ++i) {
    Rows rows;
    for (int layer = 0; layer < layer_count(report); ++layer) {
      const Freed freed = freed_pages(report, {series}, metric, thresholds[i], layer);
      if (freed.all_pages <= 0) continue;
      rows.push_back(
          {static_cast<double>(layer), freed.bytes / scale.unit, freed.shuffled_bytes / scale.unit});
      any = any || freed.bytes > 0;
      dense = std::max(dense, freed.dense_bytes);
    }
    if (rows.empty()) continue;
    const std::string block = figure.data(rows);
    const std::string color = threshold_color(i, thresholds.size());
    parts.push_back(fmt::format("{} using 1:3 with lines {} lc rgb '{}'", block, kDashed, color));
    parts.push_back(
        fmt::format("{} using 1:2 with linespoints lw 2.6 pt 7 ps 0.9 lc rgb '{}'", block, color));
  }
  if (parts.empty()) return;
  figure.panel(
      row, column,
      fmt::format("{}, {} (a layer holds {})", series.label, metric_label(metric), format_bytes(dense)),
      row == 1 ? "layer" : "", column == 0 ? fmt::format("freed in the layer ({})", scale.name) : "");
  figure.add(layer_range(report) + fmt::format("\nset yrange [0:{:.6g}]", scale.top));
  if (!any) figure.add(nothing_label("nothing at any of these thresholds"));
  figure.plot(parts);
}

void mean_panel(const Json& report, const Series& series, int column, double low, double high,
                FigureScript& figure) {
  const std::string color = series_color(series.slug);
  const std::string block = figure.data(layer_means(report, series, "cosine_centered"));
  figure.panel(0, column, series.label, "", column == 0 ? "centred cosine" : "");
  figure.add(layer_range(report) + fmt::format("\nset yrange [{:.3f}:{:.3f}]", low - 0.03, high + 0.03));
  figure.plot({fmt::format("{} using 1:3:4 with filledcurves fs transparent solid 0.16 noborder fc rgb '{}'",
                           block, color),
               fmt::format("{} using 1:5 with lines {} lc rgb '{}'", block, kDashed, kControlColor),
               fmt::format("{} using 1:2 with linespoints lw 2.8 pt 7 ps 0.9 lc rgb '{}'", block, color)});
}

// `most` is the greatest share of any panel, in percent: all have one scale.
void redundancy_panel(const Json& report, const Series& series, int column, double threshold, double most,
                      FigureScript& figure) {
  const LayerFigure shares = layer_redundancy(report, series, "cosine_centered", threshold);
  Rows rows;
  bool any = false;
  for (std::size_t layer = 0; layer < shares.real.size(); ++layer) {
    rows.push_back({static_cast<double>(layer), 100 * shares.real[layer], 100 * shares.shuffled[layer],
                    100 * shares.random[layer]});
    any = any || shares.real[layer] > 0;
  }
  const std::string block = figure.data(rows);
  figure.panel(1, column, "", "layer",
               column == 0 ? fmt::format("pages with a partner over {} (%)", threshold_key(threshold)) : "");
  figure.add(layer_range(report) + fmt::format("\nset yrange [0:{:.4g}]", percent_top(most)));
  if (!any) figure.add(nothing_label(fmt::format("no page has a partner over {}", threshold_key(threshold))));
  figure.plot({fmt::format("{} using 1:3 with lines {} lc rgb '{}'", block, kDashed, kControlColor),
               fmt::format("{} using 1:4 with lines {} lc rgb '{}'", block, kDotted, kControlColor),
               fmt::format("{} using 1:2 with linespoints lw 2.8 pt 7 ps 0.9 lc rgb '{}'", block,
                           series_color(series.slug))});
}

}  // namespace

Figure distribution_figure(const Json& report) {
  const auto series = report_series(report);
  Figure figure{"similarity_distribution.png", "How alike two pages are",
                "Distribution of similarity over all pairs of pages of a prompt set, layers summed; dashed: "
                "pages made of shuffled "
                "tokens. Above with each channel's mean removed, below without: large channel means make any "
                "two pages look alike.",
                ""};
  FigureScript script(figure.file, kWidth, kHeight, 2,
                      static_cast<int>(std::max<std::size_t>(1, series.size())));
  script.title(
      figure.title,
      subtitle_of(report, "above: channel means removed, below: plain cosine · all layers, heads joined"));
  for (std::size_t i = 0; i < series.size(); ++i) {
    distribution_panel(report, series[i], "cosine_centered", 0, static_cast<int>(i), script);
    distribution_panel(report, series[i], "cosine", 1, static_cast<int>(i), script);
  }
  const auto sets = set_names(report);
  for (std::size_t i = 0; i < sets.size(); ++i)
    script.legend(one_line(sets[i], 30), fmt::format("with lines lw 4 lc rgb '{}'", set_color(i)));
  script.legend("shuffled tokens", fmt::format("with lines {} lc rgb '{}'", kDashed, kControlColor));
  if (!series.empty()) figure.script = script.finish();
  return figure;
}

Figure layer_figure(const Json& report) {
  const double threshold = redundancy_threshold(report);
  const auto series = report_series(report);
  Figure figure{"layer_similarity.png", "Similarity and redundancy by layer",
                fmt::format("Above: mean centred cosine of all pairs of pages with the band that holds 90% "
                            "of them. Below: share of pages "
                            "with a partner over {}. Dashed: shuffled tokens; dotted: random pairs.",
                            threshold_key(threshold)),
                ""};
  FigureScript script(figure.file, kWidth, kHeight, 2,
                      static_cast<int>(std::max<std::size_t>(1, series.size())));
  script.title(figure.title, subtitle_of(report, "centred cosine, heads joined"));
  double low = 1;
  double high = -1;
  double most = 0;
  for (const Series& one : series) {
    for (const auto& row : layer_means(report, one, "cosine_centered")) {
      low = std::fmin(low, std::fmin(row[2], row[1]));
      high = std::fmax(high, std::fmax(row[3], row[1]));
    }
    const LayerFigure figures = layer_redundancy(report, one, "cosine_centered", threshold);
    for (const auto* values : {&figures.real, &figures.shuffled, &figures.random})
      for (const double value : *values) most = std::fmax(most, 100 * value);
  }
  for (std::size_t i = 0; i < series.size(); ++i) {
    mean_panel(report, series[i], static_cast<int>(i), low, high, script);
    redundancy_panel(report, series[i], static_cast<int>(i), threshold, most, script);
    script.legend(series[i].label,
                  fmt::format("with linespoints lw 3 pt 7 lc rgb '{}'", series_color(series[i].slug)));
  }
  script.legend("shuffled tokens", fmt::format("with lines {} lc rgb '{}'", kDashed, kControlColor));
  script.legend("random pairs", fmt::format("with lines {} lc rgb '{}'", kDotted, kControlColor));
  if (!series.empty()) figure.script = script.finish();
  return figure;
}

Figure opportunity_figure(const Json& report) {
  const auto series = stored_series(report);
  const auto thresholds = report.at("thresholds").get<std::vector<double>>();
  Figure figure{"compression_opportunities.png", "Bytes that sharing pages could free, by layer",
                "Bytes of pages that have a kept representative more similar than the threshold, in their "
                "layer and KV head; dashed: the "
                "same on shuffled tokens. Above plain cosine, below the stricter relative L2.",
                ""};
  const ByteScale by_cosine = byte_scale(most_freed(report, series, "cosine"));
  const ByteScale by_l2 = byte_scale(most_freed(report, series, "l2_similarity"));
  FigureScript script(figure.file, kWidth, kHeight, 2,
                      static_cast<int>(std::max<std::size_t>(1, series.size())));
  script.title(figure.title, subtitle_of(report, "a real cover: every freed page has its representative"));
  for (std::size_t i = 0; i < series.size(); ++i) {
    opportunity_panel(report, series[i], "cosine", by_cosine, 0, static_cast<int>(i), script);
    opportunity_panel(report, series[i], "l2_similarity", by_l2, 1, static_cast<int>(i), script);
  }
  for (std::size_t i = 0; i < thresholds.size(); ++i)
    script.legend(
        "over " + threshold_key(thresholds[i]),
        fmt::format("with linespoints lw 3 pt 7 lc rgb '{}'", threshold_color(i, thresholds.size())));
  script.legend("shuffled tokens", fmt::format("with lines {} lc rgb '{}'", kDashed, kControlColor));
  if (!series.empty() && !report.at("opportunity").empty()) figure.script = script.finish();
  return figure;
}

Figure growth_figure(const Json& report) {
  const auto series = report_series(report);
  const auto sets = set_names(report);
  const Json& rows = report.at("growth");
  const double threshold = rows.empty() ? redundancy_threshold(report) : number_at(rows.front(), "threshold");
  Figure figure{"growth.png", "Redundancy as the context grows",
                fmt::format("Share of pages so far with an earlier partner over {} (centred cosine) in the "
                            "same prompt, averaged over layers; "
                            "dashed: shuffled tokens.",
                            threshold_key(threshold)),
                ""};
  FigureScript script(figure.file, kWidth, 840, 1, static_cast<int>(std::max<std::size_t>(1, series.size())));
  script.title(figure.title, subtitle_of(report, fmt::format("partner over {} in centred cosine",
                                                             threshold_key(threshold))));
  bool any = false;
  double most = 0;
  for (const Json& row : rows)
    for (const char* key : {"redundancy", "shuffled"})
      for (const Json& share : row.at(key))
        if (share.is_number()) most = std::max(most, 100 * share.get<double>());
  for (std::size_t i = 0; i < series.size(); ++i) {
    std::vector<std::string> parts;
    for (const Json& row : rows) {
      const auto set = std::find(sets.begin(), sets.end(), text_at(row, "set"));
      if (!series[i].matches(row) || set == sets.end()) continue;
      Rows points;
      for (std::size_t at = 0; at < row.at("context_tokens").size(); ++at) {
        const auto share = [&](const char* key) {
          return row.at(key)[at].is_number() ? 100 * row.at(key)[at].get<double>() : NAN;
        };
        points.push_back(
            {row.at("context_tokens")[at].get<double>(), share("redundancy"), share("shuffled")});
      }
      if (points.empty()) continue;
      const std::string block = script.data(points);
      const std::string color = set_color(static_cast<std::size_t>(set - sets.begin()));
      parts.push_back(fmt::format("{} using 1:3 with lines {} lc rgb '{}'", block, kDashed, color));
      parts.push_back(
          fmt::format("{} using 1:2 with linespoints lw 2.8 pt 7 ps 0.9 lc rgb '{}'", block, color));
    }
    if (parts.empty()) continue;
    any = true;
    script.panel(0, static_cast<int>(i), series[i].label, "tokens of context",
                 i == 0 ? "redundant pages (%)" : "");
    script.add(fmt::format("set xrange [0:*]\nset yrange [0:{:.4g}]", percent_top(most)));
    if (most <= 0)
      script.add(nothing_label(fmt::format("no page has a partner over {}", threshold_key(threshold))));
    script.plot(parts);
  }
  for (std::size_t i = 0; i < sets.size(); ++i)
    script.legend(one_line(sets[i], 30), fmt::format("with linespoints lw 3 pt 7 lc rgb '{}'", set_color(i)));
  script.legend("shuffled tokens", fmt::format("with lines {} lc rgb '{}'", kDashed, kControlColor));
  if (any) figure.script = script.finish();
  return figure;
}

}  // namespace kva
