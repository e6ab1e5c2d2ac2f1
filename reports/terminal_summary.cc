#include "reports/terminal_summary.h"

#include <fmt/format.h>

#include <algorithm>
#include <array>
#include <cmath>
#include <nlohmann/json.hpp>
#include <vector>

#include "reports/ab_summary.h"
#include "reports/compress_tables.h"
#include "reports/findings.h"
#include "reports/report_view.h"
#include "reports/screen.h"
#include "reports/set_totals.h"
#include "reports/text_format.h"

namespace kva {
namespace {

constexpr int kBarColumns = 20;

// A character a layer (or two, three of few layers) from ▁ (0) to █ (`top`); layers are joined where there
// are more than `most` of them.
std::string sparkline(const std::vector<double>& values, double top, std::size_t most) {
  constexpr std::array<const char*, 8> kLevels = {"▁", "▂", "▃", "▄", "▅", "▆", "▇", "█"};
  const std::size_t step = std::max<std::size_t>(1, (values.size() + most - 1) / most);
  const std::size_t wide = values.size() * 3 <= most ? 3 : values.size() * 2 <= most ? 2 : 1;
  std::string line;
  for (std::size_t i = 0; i < values.size(); i += step) {
    const double value =
        mean_of({values.begin() + static_cast<std::ptrdiff_t>(i),
                 values.begin() + static_cast<std::ptrdiff_t>(std::min(i + step, values.size()))});
    if (std::isnan(value)) {
      line += std::string(wide, ' ');
      continue;
    }
    const double level = top > 0 ? std::clamp(value / top, 0.0, 1.0) : 0.0;
    for (std::size_t copy = 0; copy < wide; ++copy)
      line += kLevels[static_cast<std::size_t>(std::lround(level * 7))];
  }
  return line;
}

std::string bar(double share) {
  const auto full =
      static_cast<int>(std::lround(std::clamp(std::isnan(share) ? 0.0 : share, 0.0, 1.0) * kBarColumns));
  std::string text;
  for (int i = 0; i < kBarColumns; ++i) text += i < full ? "█" : "░";
  return text;
}

const char* series_style(const Series& series) {
  if (series.side == "V") return "33";
  return series.basis == "plain" ? "36" : "34";
}

void identity(const Json& report, Screen& screen) {
  const Json& model = report.at("model");
  screen.add("kvanalyze  ", kDim);
  screen.add(one_line(text_at(model, "name"), 80), kBold);
  screen.add(fmt::format("  {} · {} layers x {} KV heads x {} · weights {}",
                         one_line(text_at(model, "architecture"), 60), number_at(model, "layers"),
                         number_at(model, "kv_heads"), number_at(model, "head_dim"),
                         one_line(text_at(model, "weights"), 20)),
             kDim);
  screen.end();
  std::string exact;
  for (const char* key : {"repository", "revision", "variant", "source_quantization", "tensor_hash"})
    if (const std::string part = one_line(text_at(model, key), 80); !part.empty())
      exact += (exact.empty() ? "" : " · ") + part;
  screen.add("           " + exact, kDim);
  screen.end();
  screen.end();
}

void bytes(const Json& report, Screen& screen) {
  const SetTotals all = set_totals(report);
  screen.line("Cache",
              fmt::format("{} dense f16 · {} tokens, {} prompts · {} pages of {} tokens a head",
                          format_bytes(number_at(report.at("cache"), "dense_f16_bytes")),
                          format_count(all.tokens), format_count(all.prompts), format_count(all.pages),
                          format_count(number_at(report.at("cache"), "page_tokens"))));
  const double threshold = nearest_threshold(report, kHeadlineCover);
  const char* label = "Could free";
  for (const char* metric : {"cosine", "l2_similarity"}) {
    const Freed freed = freed_pages(report, stored_series(report), metric, threshold);
    screen.add(padded(label, 12), kBold);
    screen.add(padded(fmt::format("{} ({})", format_bytes(freed.bytes), format_share(freed.share())), 20),
               "1;32");
    screen.add(padded(fmt::format("{} over {}", metric_label(metric), threshold_key(threshold)), 34));
    screen.add(fmt::format("shuffled {} ({})", format_bytes(freed.shuffled_bytes),
                           format_share(freed.shuffled_share())),
               kDim);
    screen.end();
    label = "";
  }
}

void redundancy(const Json& report, Screen& screen) {
  const double threshold = redundancy_threshold(report);
  const std::size_t most = std::clamp<std::size_t>((screen.width() - 40) / 2, 8, 36);
  const auto series = report_series(report);
  std::vector<LayerFigure> figures;
  double top = 0;
  for (const Series& one : series) {
    figures.push_back(layer_redundancy(report, one, "cosine_centered", threshold));
    for (const auto* values : {&figures.back().real, &figures.back().shuffled})
      for (const double value : *values) top = std::fmax(top, value);
  }
  if (top <= 0) {
    screen.heading(fmt::format("Pages with a partner over {} in centred cosine", threshold_key(threshold)),
                   "");
    screen.add("  none in any layer, in shuffled tokens neither");
    screen.end();
    return;
  }
  screen.heading(fmt::format("Pages with a partner over {} in centred cosine", threshold_key(threshold)),
                 fmt::format("layer 0 to {}, a full bar is {}", layer_count(report) - 1, format_share(top)));
  for (std::size_t i = 0; i < series.size(); ++i) {
    screen.add("  " + padded(series[i].label, 14));
    screen.add(padded(format_share(mean_of(figures[i].real)), 7), kBold);
    screen.add(sparkline(figures[i].real, top, most), series_style(series[i]));
    screen.add("  shuffled " + padded(format_share(mean_of(figures[i].shuffled)), 6), kDim);
    screen.add(sparkline(figures[i].shuffled, top, most), kDim);
    screen.end();
  }
}

void opportunities(const Json& report, Screen& screen) {
  constexpr std::size_t kMost = 5;
  struct Place {
    Series series;
    int layer;
    Freed freed;
  };
  const double threshold = nearest_threshold(report, kHeadlineCover);
  std::vector<Place> places;
  for (const Series& series : stored_series(report))
    for (int layer = 0; layer < layer_count(report); ++layer)
      if (const Freed freed = freed_pages(report, {series}, "cosine", threshold, layer); freed.bytes > 0)
        places.push_back({series, layer, freed});
  std::stable_sort(places.begin(), places.end(),
                   [](const Place& a, const Place& b) { return a.freed.bytes > b.freed.bytes; });
  screen.heading(fmt::format("Most to gain at cosine {}", threshold_key(threshold)),
                 "share of the layer's pages that have a kept representative");
  if (places.empty()) {
    screen.add("  nothing: no page is that similar to another");
    screen.end();
  }
  for (std::size_t i = 0; i < std::min(kMost, places.size()); ++i) {
    const Place& place = places[i];
    screen.add("  " + padded(fmt::format("layer {:<3} {}", place.layer, place.series.label), 25));
    screen.add(bar(place.freed.share()), series_style(place.series));
    screen.add(
        fmt::format(" {:>6}  {:>9}", format_share(place.freed.share()), format_bytes(place.freed.bytes)),
        kBold);
    screen.add(fmt::format("  shuffled {:>6}", format_share(place.freed.shuffled_share())), kDim);
    screen.end();
  }
}

void differences(const Json& report, Screen& screen) {
  constexpr int kMost = 6;
  const auto series = report_series(report);
  int found = 0;
  int shown = 0;
  int absent = 0;
  if (report.at("set_differences").empty()) return;
  screen.heading("Prompt sets", "mean centred cosine, 95% interval over prompts");
  for (const Json& row : report.at("set_differences")) {
    const bool differs = !text_is(row, "verdict", "no difference found");
    ++(differs ? found : absent);
    if (!differs || shown >= kMost || !text_is(row, "metric", "cosine_centered") ||
        !text_is(row, "statistic", "mean"))
      continue;
    ++shown;
    std::string label = text_at(row, "side");
    for (const Series& one : series)
      if (one.matches(row)) label = one.label;
    screen.add("  " + padded(label, 16));
    screen.add(padded(fmt::format("{} {} than {}", one_line(text_at(row, "a"), 16), text_at(row, "verdict"),
                                  one_line(text_at(row, "b"), 16)),
                      34));
    screen.add(padded(format_number(number_at(row, "difference"), 3), 8), kBold);
    screen.add(fmt::format("[{}, {}]", format_number(number_at(row, "low"), 3),
                           format_number(number_at(row, "high"), 3)),
               kDim);
    screen.end();
  }
  screen.add(fmt::format("  of all {} comparisons {} show a difference; no difference found in {}",
                         found + absent, found, absent),
             kDim);
  screen.end();
}

void closing(const Json& report, Screen& screen) {
  const Json& timing = report.at("timing");
  screen.end();
  screen.line("Time", fmt::format("prefill {} tokens/s · decode {} tokens/s · analysis {} · {} in all",
                                  format_rate(number_at(timing, "prefill_tokens_per_s")),
                                  format_rate(number_at(timing, "decode_tokens_per_s")),
                                  format_seconds(number_at(timing, "analysis_s")),
                                  format_seconds(number_at(report.at("provenance"), "duration_s"))));
}

}  // namespace

std::string terminal_summary(const nlohmann::ordered_json& report, bool color, int width) {
  Screen screen(color, width);
  identity(report, screen);
  if (text_is(report, "kind", "ab")) {
    ab_summary(report, screen);
    return screen.take();
  }
  if (text_is(report, "kind", "compression")) {
    compress_summary(report, screen);
    return screen.take();
  }
  bytes(report, screen);
  redundancy(report, screen);
  opportunities(report, screen);
  differences(report, screen);
  if (report.contains("ab")) ab_section_summary(report, screen);
  closing(report, screen);
  return screen.take();
}

}  // namespace kva
