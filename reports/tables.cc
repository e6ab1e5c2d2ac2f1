#include "reports/tables.h"

#include <fmt/format.h>

#include <cmath>
#include <nlohmann/json.hpp>

#include "reports/findings.h"
#include "reports/report_view.h"
#include "reports/text_format.h"

namespace kva {
namespace {

Cell text(std::string value) { return {std::move(value)}; }
Cell count(double value) { return {format_count(value), value}; }
Cell bytes(double value) { return {format_bytes(value), value}; }
Cell share(double value) { return {format_share(value), value}; }
Cell number(double value, int digits = 3) { return {format_number(value, digits), value}; }

std::string label_of(const std::vector<Series>& known, const Json& row) {
  for (const Series& series : known)
    if (series.matches(row)) return series.label;
  return text_at(row, "side");
}

std::string or_dash(const std::string& value) { return value.empty() ? "–" : value; }

void add(Table& table, const std::string& name, const std::string& value) {
  table.rows.push_back({text(name), text(or_dash(value))});
}

std::string plain(const Json& value) {
  return value.is_string() ? value.get<std::string>()
                           : value.dump(-1, ' ', false, Json::error_handler_t::replace);
}

// What decoded, and what analysed where that is another.
std::string devices_of(const Json& run) {
  const std::string device = text_at(run, "device"), analysis = text_at(run, "analysis_device");
  return analysis.empty() || analysis == device ? device
                                                : fmt::format("{}, analysis on {}", device, analysis);
}

}  // namespace

Table identity_table(const Json& report) {
  const Json& model = report.at("model");
  const Json& run = report.at("provenance");
  const Json& host = run.at("host");
  const Json& build = run.at("build");
  Table table{"identity", "What was measured", "", {{"", false}, {"", false}}, {}};
  add(table, "Model", text_at(model, "name"));
  add(table, "Repository", fmt::format("{} {}", text_at(model, "repository"), text_at(model, "revision")));
  add(table, "Variant", text_at(model, "variant"));
  add(table, "Source quantization", text_at(model, "source_quantization"));
  add(table, "Tensor hash", text_at(model, "tensor_hash"));
  add(table, "Architecture",
      fmt::format("{}, {} parameters, weights in {}", text_at(model, "architecture"),
                  format_count(number_at(model, "parameters")), text_at(model, "weights")));
  add(table, "Shape",
      fmt::format(
          "{} layers, {} heads, {} KV heads of {}, up to {} positions, {}",
          format_count(number_at(model, "layers")), format_count(number_at(model, "heads")),
          format_count(number_at(model, "kv_heads")), format_count(number_at(model, "head_dim")),
          format_count(number_at(model, "max_positions")),
          text_is(model, "position_encoding", "rope") ? "rotary positions (RoPE)" : "learned positions"));
  add(table, "Recipe", text_at(run, "recipe"));
  add(table, "Command", text_at(run, "command"));
  add(table, "Started",
      fmt::format("{}, {} in all", text_at(run, "started"), format_seconds(number_at(run, "duration_s"))));
  add(table, "Program",
      fmt::format("kvanalyze {} (commit {}, {}, {}, FAISS {}{})", text_at(run, "version"),
                  text_at(run, "commit"), text_at(build, "type"), text_at(build, "compiler"),
                  or_dash(text_at(build, "faiss")),
                  text_at(build, "cuda").empty() ? "" : ", CUDA " + text_at(build, "cuda")));
  add(table, "Machine",
      fmt::format("{}, {} cores, {}, {} of memory, device {}, {} threads, seed {}", text_at(host, "cpu"),
                  format_count(number_at(host, "cores")), text_at(host, "simd"),
                  format_bytes(number_at(host, "memory_bytes")), devices_of(run),
                  format_count(number_at(run, "threads")), plain(run.at("seed"))));
  return table;
}

std::string device_memory_line(const Json& object, const char* member) {
  const auto memory = object.find(member);
  if (memory == object.end() || memory->is_null()) return "";
  return fmt::format("peak {} with weights and workspace; the driver counts {} of {} used",
                     format_bytes(number_at(*memory, "peak_device_bytes")),
                     format_bytes(number_at(*memory, "driver_used_bytes")),
                     format_bytes(number_at(*memory, "driver_total_bytes")));
}

Table cache_table(const Json& report) {
  const Json& cache = report.at("cache");
  const Json& ledger = cache.at("ledger");
  const Json& timing = report.at("timing");
  Table table{"cache", "Bytes and time", "", {{"", false}, {"", false}}, {}};
  add(table, "All tokens, dense f16", format_bytes(number_at(cache, "dense_f16_bytes")));
  add(table, "In the cache at its fullest",
      fmt::format("{} tokens, {} in dense f16; sequences that ended were freed",
                  format_count(number_at(cache, "fullest_tokens")),
                  format_bytes(number_at(cache, "fullest_dense_f16_bytes"))));
  add(table, "Held then",
      fmt::format("{}: payload {}, scales {}, side data {}, tables {}, slack {}",
                  format_bytes(number_at(ledger, "held")), format_bytes(number_at(ledger, "payload")),
                  format_bytes(number_at(ledger, "scales")), format_bytes(number_at(ledger, "side")),
                  format_bytes(number_at(ledger, "tables")), format_bytes(number_at(ledger, "slack"))));
  add(table, "Compression (dense ÷ held)", format_number(number_at(cache, "compression"), 3));
  add(table, "Workspace, peak",
      fmt::format("{}, {}", format_bytes(number_at(ledger, "workspace")),
                  format_bytes(number_at(ledger, "peak"))));
  if (const std::string memory = device_memory_line(cache, "device_memory"); !memory.empty())
    add(table, "GPU memory", memory);
  add(table, "Page",
      fmt::format("{} tokens, {} for one side of one KV head, keys stored {}",
                  format_count(number_at(cache, "page_tokens")), format_bytes(number_at(cache, "page_bytes")),
                  text_at(cache, "key_basis")));
  add(table, "Load", format_seconds(number_at(timing, "load_s")));
  for (const char* stage : {"prefill", "decode"}) {
    const std::string name = stage;
    add(table, name == "prefill" ? "Prefill" : "Decode",
        fmt::format("{} tokens in {}, {} tokens/s",
                    format_count(number_at(timing, (name + "_tokens").c_str())),
                    format_seconds(number_at(timing, (name + "_s").c_str())),
                    format_rate(number_at(timing, (name + "_tokens_per_s").c_str()))));
  }
  add(table, "Analysis",
      fmt::format("{} page pairs in {}, {} pairs/s", format_count(number_at(timing, "pairs")),
                  format_seconds(number_at(timing, "analysis_s")),
                  format_rate(number_at(timing, "pairs_per_s"))));
  if (const auto products = report.find("products");
      products != report.end() && products->at("error").is_object())
    add(table, "Products of pages",
        fmt::format("{}, summed in f32: off by at most {} (cosine), {} (centred), {} (L2 similarity)",
                    text_at(*products, "dtype"), format_number(number_at(products->at("error"), "cosine"), 4),
                    format_number(number_at(products->at("error"), "cosine_centered"), 4),
                    format_number(number_at(products->at("error"), "l2_similarity"), 4)));
  return table;
}

Table sets_table(const Json& report) {
  const double threshold = redundancy_threshold(report);
  const auto series = report_series(report);
  Table table{
      "sets",
      "Prompt sets side by side",
      fmt::format(
          "Redundancy is the share of a set's pages with a partner over {} (centred cosine) in the same "
          "set, averaged over layers; in brackets the same on shuffled tokens.",
          threshold_key(threshold)),
      {{"set", false}, {"prompts"}, {"tokens"}, {"pages"}},
      {}};
  for (const Series& one : series) table.columns.push_back({"redundancy " + one.label});
  for (const Json& set : report.at("sets")) {
    std::vector<Cell> row = {text(text_at(set, "name")), count(number_at(set, "prompts")),
                             count(number_at(set, "tokens")), count(number_at(set, "pages"))};
    for (const Series& one : series) {
      const LayerFigure figure =
          layer_redundancy(report, one, "cosine_centered", threshold, text_at(set, "name"));
      const double real = mean_of(figure.real);
      row.push_back(
          {fmt::format("{} ({})", format_share(real), format_share(mean_of(figure.shuffled))), real});
    }
    table.rows.push_back(std::move(row));
  }
  return table;
}

Table prompts_table(const Json& report) {
  Table table{"prompts",
              "Prompts",
              "A hash names the prompt's text, so that runs can be compared.",
              {{"set", false},
               {"prompt", false},
               {"tokens"},
               {"generated"},
               {"pages"},
               {"cut", false},
               {"hash", false}},
              {}};
  for (const Json& prompt : report.at("prompts"))
    table.rows.push_back(
        {text(text_at(prompt, "set")), text(text_at(prompt, "name")), count(number_at(prompt, "tokens")),
         count(number_at(prompt, "generated")), count(number_at(prompt, "pages")),
         text(prompt.at("truncated").get<bool>() ? "cut to fit" : "whole"), text(text_at(prompt, "hash"))});
  return table;
}

Table redundancy_table(const Json& report) {
  const double threshold = redundancy_threshold(report);
  const double cover = nearest_threshold(report, kHeadlineCover);
  Table table{"layers",
              "Redundancy by layer",
              fmt::format("Share of pages with a partner over {} (centred cosine, heads joined), beside "
                          "shuffled tokens; then "
                          "the bytes that a cover at plain cosine {} frees.",
                          threshold_key(threshold), threshold_key(cover)),
              {{"layer"}},
              {}};
  const auto all = report_series(report);
  const auto stored = stored_series(report);
  std::vector<LayerFigure> figures;
  for (const Series& series : all) {
    table.columns.push_back({series.label});
    table.columns.push_back({series.label + ", shuffled"});
    figures.push_back(layer_redundancy(report, series, "cosine_centered", threshold));
  }
  for (const Series& series : stored) {
    table.columns.push_back({series.label + " freed"});
    table.columns.push_back({series.label + " freed, shuffled"});
  }
  for (int layer = 0; layer < layer_count(report); ++layer) {
    std::vector<Cell> row = {count(layer)};
    for (const LayerFigure& figure : figures) {
      row.push_back(share(figure.real[static_cast<std::size_t>(layer)]));
      row.push_back(share(figure.shuffled[static_cast<std::size_t>(layer)]));
    }
    for (const Series& series : stored) {
      const Freed freed = freed_pages(report, {series}, "cosine", cover, layer);
      row.push_back(bytes(freed.bytes));
      row.push_back(bytes(freed.shuffled_bytes));
    }
    table.rows.push_back(std::move(row));
  }
  return table;
}

Table opportunity_table(const Json& report) {
  Table table{"opportunities",
              "What could be freed, layers summed",
              "Every freed page has a representative that is kept, in its layer and KV head, and is more "
              "similar to it than "
              "the threshold.",
              {{"pages", false},
               {"similarity", false},
               {"threshold"},
               {"of pages"},
               {"freed pages"},
               {"freed"},
               {"share"},
               {"shuffled control"},
               {"beyond control"}},
              {}};
  for (const Series& series : report_series(report)) {
    for (const char* metric : {"cosine", "l2_similarity"}) {
      for (const Json& threshold : report.at("thresholds")) {
        const Freed freed = freed_pages(report, {series}, metric, threshold.get<double>());
        if (freed.all_pages <= 0) continue;
        table.rows.push_back({text(series.label), text(metric_label(metric)),
                              number(threshold.get<double>(), 2), count(freed.all_pages), count(freed.pages),
                              bytes(freed.bytes), share(freed.share()), share(freed.shuffled_share()),
                              bytes(freed.bytes - freed.shuffled_bytes)});
      }
    }
  }
  return table;
}

Table difference_table(const Json& report, const std::string& metric) {
  const auto series = report_series(report);
  Table table{
      "differences",
      "How the prompt sets differ",
      "First set minus second, averaged over layers, with a 95% bootstrap interval over prompts. An interval "
      "that holds 0 is \"no difference found\", which is not evidence of equality.",
      {{"first", false},
       {"second", false},
       {"pages", false},
       {"similarity", false},
       {"statistic", false},
       {"difference"},
       {"low"},
       {"high"},
       {"verdict", false}},
      {}};
  for (const Json& row : report.at("set_differences")) {
    if (!metric.empty() && !text_is(row, "metric", metric)) continue;
    table.rows.push_back({text(text_at(row, "a")), text(text_at(row, "b")), text(label_of(series, row)),
                          text(metric_label(text_at(row, "metric"))), text(text_at(row, "statistic")),
                          number(number_at(row, "difference")), number(number_at(row, "low")),
                          number(number_at(row, "high")), text(text_at(row, "verdict"))});
  }
  return table;
}

Table cluster_table(const Json& report) {
  const auto series = report_series(report);
  Table table{"clusters",
              "Clusters (k-means)",
              "What sharing one centroid in each cluster would free, centroids and page indices charged; the "
              "relative error "
              "is what reading centroids instead of pages costs in L2.",
              {{"layer"},
               {"pages", false},
               {"k"},
               {"largest"},
               {"empty"},
               {"explained"},
               {"shuffled"},
               {"distance, mean"},
               {"held"},
               {"freed"},
               {"relative error"}},
              {}};
  for (const Json& row : report.at("clusters")) {
    double largest = 0;
    for (const Json& size : row.at("sizes")) largest = std::max(largest, size.get<double>());
    const Json& sharing = row.at("sharing");
    table.rows.push_back({count(number_at(row, "layer")), text(label_of(series, row)),
                          count(number_at(row, "k")), count(largest), count(number_at(row, "empty")),
                          share(number_at(row, "explained")), share(number_at(row, "explained_shuffled")),
                          number(number_at(row.at("distance"), "mean"), 2),
                          bytes(number_at(sharing, "held_bytes")), bytes(number_at(sharing, "freed_bytes")),
                          number(number_at(sharing, "relative_error"))});
  }
  return table;
}

Table duplicate_table(const Json& report) {
  Table table{
      "duplicates",
      "Exact duplicates",
      "Pages with the very same bytes, found by hash and confirmed by comparison.",
      {{"layer"}, {"side", false}, {"pages"}, {"unique"}, {"duplicates"}, {"freed"}, {"shuffled duplicates"}},
      {}};
  for (const Json& row : report.at("duplicates"))
    table.rows.push_back({count(number_at(row, "layer")), text(text_at(row, "side")),
                          count(number_at(row, "pages")), count(number_at(row, "unique")),
                          count(number_at(row, "duplicates")), bytes(number_at(row, "bytes")),
                          count(number_at(row, "shuffled_duplicates"))});
  return table;
}

Table norm_table(const Json& report) {
  Table table{"norms",
              "Norms and outlier channels",
              "Mean L2 norm of a token's keys and values; an outlier channel has an rms over 6 times the "
              "layer's median.",
              {{"layer"}, {"K norm"}, {"V norm"}, {"K ÷ V"}, {"K outlier channels"}, {"V outlier channels"}},
              {}};
  for (const Json& row : report.at("norms"))
    table.rows.push_back({count(number_at(row, "layer")), number(number_at(row, "k_norm"), 2),
                          number(number_at(row, "v_norm"), 2), number(number_at(row, "ratio"), 2),
                          count(number_at(row, "k_outlier_channels")),
                          count(number_at(row, "v_outlier_channels"))});
  return table;
}

Table definition_table(const Json& report) {
  Table table{"definitions", "What the terms mean", "", {{"term", false}, {"meaning", false}}, {}};
  for (const auto& [term, meaning] : report.at("definitions").items())
    table.rows.push_back({text(term), text(plain(meaning))});
  return table;
}

Table option_table(const Json& report) {
  Table table{"options", "Every option", "", {{"option", false}, {"value", false}}, {}};
  for (const auto& [name, value] : report.at("provenance").at("options").items())
    table.rows.push_back({text(name), text(or_dash(plain(value)))});
  return table;
}

std::string to_markdown(const Table& table) {
  if (table.rows.empty()) return "";
  std::string out = "|";
  for (const auto& column : table.columns) out += " " + escape_markdown(column.name) + " |";
  out += "\n|";
  for (const auto& column : table.columns) out += column.numeric ? " ---: |" : " --- |";
  out += "\n";
  for (const auto& row : table.rows) {
    out += "|";
    for (const Cell& cell : row) out += " " + escape_markdown(cell.text) + " |";
    out += "\n";
  }
  return out;
}

std::string to_html(const Table& table) {
  if (table.rows.empty()) return "<p class=\"none\">Nothing to show here.</p>\n";
  std::string out = fmt::format("<div class=\"scroll\"><table class=\"sortable\" id=\"table-{}\"", table.id);
  out += fmt::format(" aria-label=\"{}\">\n", escape_html(table.title));
  const bool headed = !table.columns.front().name.empty();
  if (headed) {
    out += "<thead><tr>";
    for (const auto& column : table.columns)
      out += fmt::format("<th scope=\"col\"{}>{}</th>", column.numeric ? " class=\"number\"" : "",
                         escape_html(column.name));
    out += "</tr></thead>\n";
  }
  out += "<tbody>\n";
  for (const auto& row : table.rows) {
    out += "<tr>";
    for (std::size_t i = 0; i < row.size(); ++i) {
      const bool head = !headed && i == 0;
      const std::string sort =
          std::isnan(row[i].sort) ? "" : fmt::format(" data-sort=\"{:.6g}\"", row[i].sort);
      const std::string name = escape_html(one_line(row[i].text, 2000));
      out += head ? fmt::format("<th scope=\"row\">{}</th>", name)
                  : fmt::format("<td{}{}>{}</td>", table.columns[i].numeric ? " class=\"number\"" : "", sort,
                                name);
    }
    out += "</tr>\n";
  }
  return out + "</tbody></table></div>\n";
}

}  // namespace kva
