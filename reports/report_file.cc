#include "reports/report_file.h"

#include <fmt/format.h>

#include <nlohmann/json.hpp>
#include <stdexcept>

#include "reports/assets.h"
#include "reports/html_report.h"
#include "reports/markdown_report.h"
#include "reports/plotly.h"
#include "reports/plots.h"
#include "reports/report_folder.h"
#include "reports/report_view.h"
#include "reports/schema_check.h"
#include "reports/text_format.h"
#include "runtime/error.h"
#include "runtime/interrupt.h"
#include "runtime/io/file.h"
#include "runtime/io/json.h"

namespace kva {
namespace {

constexpr int64_t kVersion = 1;
constexpr int64_t kMaxBytes = int64_t{256} << 20;

[[noreturn]] void fail(const std::string& source, const std::string& field, const std::string& expected,
                       std::size_t found) {
  throw InputError(fmt::format("{}: {}: expected {}, found {}", source, field, expected, found));
}

void check_version(const Json& report, const std::string& source) {
  if (!report.is_object() || !text_is(report, "schema", "kvanalyze.report"))
    throw InputError(
        fmt::format("{}: schema: expected \"kvanalyze.report\"; this is no report of kvanalyze", source));
  const auto version = report.find("schema_version");
  if (version == report.end() || !version->is_number_integer())
    throw InputError(fmt::format("{}: schema_version: expected the whole number {}", source, kVersion));
  if (version->get<double>() > static_cast<double>(kVersion))
    throw InputError(
        fmt::format("{}: schema_version: expected {}, found {}; it was written by a newer kvanalyze, please "
                    "update this one",
                    source, kVersion, one_line(version->dump(), 40)));
}

// Shapes that a JSON Schema cannot tie together.
void check_redundancy_shapes(const Json& report, const std::string& source) {
  const auto layers = report.at("model").at("layers").get<double>();
  for (std::size_t i = 0; i < report.at("similarity").size(); ++i) {
    const Json& row = report.at("similarity")[i];
    const auto bins = report.at("histogram_bins").find(text_at(row, "metric"));
    for (const Json* holder : {&row, &row.at("controls").at("shuffled")}) {
      const auto histogram = holder->find("histogram");
      if (histogram == holder->end() || histogram->is_null()) continue;
      const double expected = bins == report.at("histogram_bins").end() ? 0 : number_at(*bins, "bins");
      if (static_cast<double>(histogram->size()) != expected)
        fail(source, fmt::format("similarity[{}].histogram", i),
             fmt::format("{} bins as in histogram_bins", expected), histogram->size());
    }
  }
  for (std::size_t i = 0; i < report.at("layer_matrix").size(); ++i) {
    const Json& values = report.at("layer_matrix")[i].at("values");
    for (const Json& row : values)
      if (row.size() != values.size())
        fail(source, fmt::format("layer_matrix[{}].values", i), fmt::format("rows of {}", values.size()),
             row.size());
  }
  for (std::size_t i = 0; i < report.at("heatmaps").size(); ++i) {
    const Json& map = report.at("heatmaps")[i];
    const auto bins = map.at("bins").get<std::size_t>();
    std::string bytes;
    if (!base64_decode(map.at("data").get_ref<const std::string&>(), bytes) || bytes.size() != bins * bins)
      fail(source, fmt::format("heatmaps[{}].data", i), fmt::format("base64 of {} bytes", bins * bins),
           bytes.size());
    if (number_at(map, "layer") >= layers)
      fail(source, fmt::format("heatmaps[{}].layer", i), fmt::format("a layer below {}", layers),
           map.at("layer").get<std::size_t>());
  }
  for (std::size_t i = 0; i < report.at("growth").size(); ++i) {
    const Json& row = report.at("growth")[i];
    for (const char* key : {"redundancy", "shuffled"})
      if (row.at(key).size() != row.at("context_tokens").size())
        fail(source, fmt::format("growth[{}].{}", i, key),
             fmt::format("{} values as in context_tokens", row.at("context_tokens").size()),
             row.at(key).size());
  }
}

void check_passkey_shapes(const Json& passkey, std::size_t rows, const std::string& source) {
  const std::size_t cells = passkey.at("cells").size();
  const std::size_t expected = passkey.at("lengths").size() * passkey.at("depths").size();
  if (cells != expected)
    fail(source, "ab.passkey.cells", fmt::format("{}, as many as lengths times depths", expected), cells);
  if (passkey.at("rows").size() != rows)
    fail(source, "ab.passkey.rows", fmt::format("{} as in ab.rows", rows), passkey.at("rows").size());
  if (const std::size_t found = passkey.at("base").at("cells").size(); found != cells)
    fail(source, "ab.passkey.base.cells", fmt::format("{} as in ab.passkey.cells", cells), found);
  for (std::size_t i = 0; i < rows; ++i)
    if (const std::size_t found = passkey.at("rows")[i].at("cells").size(); found != cells)
      fail(source, fmt::format("ab.passkey.rows[{}].cells", i),
           fmt::format("{} as in ab.passkey.cells", cells), found);
}

void check_ab_shapes(const Json& report, const std::string& source) {
  const Json& ab = report.at("ab");
  const Json& sizes = ab.at("blocks").at("tokens");
  double of_blocks = 0, of_windows = 0;
  for (const Json& size : sizes) of_blocks += size.get<double>();
  for (const Json& window : ab.at("blocks").at("window_tokens")) of_windows += window.get<double>();
  if (of_blocks != of_windows)
    fail(source, "ab.blocks.tokens", fmt::format("the {} tokens of window_tokens", of_windows),
         static_cast<std::size_t>(of_blocks));
  for (std::size_t i = 0; i < ab.at("rows").size(); ++i) {
    const Json& row = ab.at("rows")[i];
    for (const char* key : {"nll", "kl", "same_top"})
      if (row.at("block_sums").at(key).size() != sizes.size())
        fail(source, fmt::format("ab.rows[{}].block_sums.{}", i, key),
             fmt::format("{} blocks as in ab.blocks", sizes.size()), row.at("block_sums").at(key).size());
    if (number_at(row, "tokens") != of_windows)
      fail(source, fmt::format("ab.rows[{}].tokens", i), fmt::format("{} as in ab.blocks", of_windows),
           row.at("tokens").get<std::size_t>());
  }
  if (const auto passkey = ab.find("passkey"); passkey != ab.end() && !passkey->is_null())
    check_passkey_shapes(*passkey, ab.at("rows").size(), source);
}

void check_shapes(const Json& report, const std::string& source) {
  if (report.contains("ab")) check_ab_shapes(report, source);
  if (text_is(report, "kind", "redundancy")) check_redundancy_shapes(report, source);
}

// Members of the report on lines of their own, and elements of their arrays too: readable, diffable, not
// long.
std::string report_text(const Json& report) {
  const auto dump = [](const Json& value) {
    return value.dump(-1, ' ', false, Json::error_handler_t::replace);
  };
  std::string text = "{\n";
  bool first = true;
  for (const auto& [key, value] : report.items()) {
    text += fmt::format("{}{}: ", first ? "" : ",\n", dump(Json(key)));
    first = false;
    // An object of tables: each row of them.
    if (key == "ab" || key == "compression") {
      text += report_text(value);
      text.pop_back();
      continue;
    }
    const bool rows = value.is_structured() && !value.empty() && value.front().is_structured();
    if (!rows) {
      text += dump(value);
      continue;
    }
    text += value.is_array() ? "[" : "{";
    bool first_row = true;
    for (const auto& [name, row] : value.items()) {
      text += fmt::format("{}\n {}{}", first_row ? "" : ",", value.is_array() ? "" : dump(Json(name)) + ": ",
                          dump(row));
      first_row = false;
    }
    text += value.is_array() ? "\n]" : "\n}";
  }
  return text + "\n}\n";
}

std::map<std::string, std::string> read_pngs(const PlotSet& plots, const std::string& folder) {
  std::map<std::string, std::string> bytes;
  for (const Plot& plot : plots.plots)
    bytes[plot.file] = read_text_file(folder + "/" + plot.file, int64_t{64} << 20);
  return bytes;
}

}  // namespace

void check_report(const nlohmann::ordered_json& report, const std::string& source) {
  static const Json kSchema = Json::parse(asset("report.schema.json"));
  check_version(report, source);
  check_schema(report, kSchema, source);
  check_shapes(report, source);
}

nlohmann::ordered_json load_report(const std::string& path) {
  const std::string text = read_text_file(path, kMaxBytes);
  Json report = parse_ordered_json(text, path, {.max_bytes = kMaxBytes, .max_depth = 32});
  check_report(report, path);
  return report;
}

std::vector<std::string> write_report(const nlohmann::ordered_json& report, const std::string& folder,
                                      const RenderOptions& options) {
  // Rendered from what a reader will read: NaN is null there.
  const std::string text = report_text(report);
  const Json written = Json::parse(text);
  try {
    check_report(written, "report");
  } catch (const InputError& error) {
    throw std::logic_error(fmt::format("the report that was made breaks its own schema: {}", error.what()));
  }
  const std::string plotly = load_plotly(options.plotly_path);
  ReportFolder target(folder);
  PlotSet plots;
  if (options.plots) {
    make_directories(target.staging() + "/plots");
    plots = render_plots(written, target.staging() + "/plots");
  } else {
    plots.notes.push_back("plots: left out as asked (--no-plots)");
  }
  throw_if_interrupted();
  const auto pngs =
      plotly.empty() ? read_pngs(plots, target.staging() + "/plots") : std::map<std::string, std::string>();
  write_text_file(target.staging() + "/report.html", html_report(written, plots, pngs, plotly));
  write_text_file(target.staging() + "/report.md", markdown_report(written, plots));
  for (const auto& [name, contents] : options.extra_files)
    write_text_file(target.staging() + "/" + name, contents);
  write_text_file(target.staging() + "/report.json", text);
  throw_if_interrupted();
  std::vector<std::string> notes = options.plots ? plots.notes : std::vector<std::string>();
  if (options.extra)
    for (std::string& note : options.extra(target.staging())) notes.push_back(std::move(note));
  target.publish();
  if (plotly.empty())
    notes.push_back(
        "report.html: charts are pictures, since plotly.min.js is not in the cache; scripts/fetch_plotly.py "
        "puts it there");
  return notes;
}

}  // namespace kva
