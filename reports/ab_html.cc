#include "reports/ab_html.h"

#include <nlohmann/json.hpp>

#include "reports/ab_findings.h"
#include "reports/ab_tables.h"
#include "reports/ab_view.h"
#include "reports/head_decisions.h"

namespace kva {
namespace {

Table unnamed(Table table, const std::string& title) {
  table.title = title;
  table.caption.clear();
  return table;
}

constexpr const char* kFrontCaption =
    "Each recipe with its 95% interval: further left holds fewer bytes, further down loses less. Ringed and "
    "joined: the front, which no other recipe beats in both. Dashed: the noise floor, what two exact caches "
    "differ by. Dotted: recipes that differ in numbers alone.";

void findings_section(HtmlPage& page, const Json& report) {
  page.open("findings", "Findings", "Findings");
  for (const std::string& sentence : ab_protocol_sentences(report)) page.paragraph(sentence);
  page.findings(ab_findings(report));
  page.close();
}

void row_sections(HtmlPage& page, const Json& report) {
  const Table rows = ab_table(report);
  page.open("recipes", rows.title, "Recipes", rows.caption);
  page.table(unnamed(rows, rows.title), false);
  page.table(ab_interval_table(report), true);
  page.table(ab_noise_table(report), true);
  page.close();
}

void quality_sections(HtmlPage& page, const Json& report) {
  page.open("front", "Quality against bytes", "Quality and bytes", kFrontCaption);
  page.chart("front", "Mean KL against bits a number, every recipe a point", "quality_front");
  if (const Table equal = ab_equal_bytes_table(report); !equal.rows.empty()) page.table(equal, true);
  if (const Table bases = ab_against_bases_table(report); !bases.rows.empty()) page.table(bases, true);
  if (const Table pairs = ab_difference_table(report); !pairs.rows.empty()) page.table(pairs, true);
  page.close();
  if (page.interactive()) {
    page.open(
        "perplexity", "Perplexity against bytes", "Perplexity",
        "Change of perplexity against the base with its 95% interval. One that crosses the dashed line shows "
        "no "
        "change. Where some change is over 10%, the axis is logarithmic beyond about 0.1% on both sides.");
    page.chart("perplexity", "Change of perplexity against bits a number, every recipe a point", "");
    page.close();
  }
  page.open("positions", "KL by position in the window", "Positions",
            "Mean KL of scored tokens by where they stand: further right, more of the past was compressed.");
  page.chart("positions", "Mean KL by position, a line for each recipe", "kl_by_position");
  if (const Table turns = ab_turn_table(report); !turns.rows.empty()) page.table(turns, false);
  if (const Table windows = ab_window_table(report); !windows.rows.empty()) page.table(windows, true);
  page.close();
}

void byte_sections(HtmlPage& page, const Json& report) {
  const Table bytes = ab_bytes_table(report);
  page.open(
      "bytes", bytes.title, "Bytes",
      "What each recipe holds at the last scored token of a window, by what holds it. Dashed: what the same "
      "numbers take in dense f16, nothing else counted.");
  page.chart("bytes", "Bytes held by each recipe, stacked by part", "bytes_by_recipe");
  page.table(bytes, page.interactive());
  page.close();
  page.open("layers", "Layer by layer", "Layers",
            "Payload and scales of each layer; 100% is the layer's share of the same numbers in dense f16. A "
            "page that "
            "layers share is counted in the layer that keeps it.");
  page.chart("layers", "Bytes of each layer under each recipe", "layer_bytes");
  page.close();
  if (const Table errors = ab_layer_error_table(report); !errors.rows.empty()) {
    page.open("errors", errors.title, "Errors", errors.caption);
    page.chart("errors", "Relative error of each layer under each recipe", "layer_error");
    page.table(unnamed(errors, errors.title), false);
    page.close();
  }
  if (const Table heads = ab_heads_table(report); !heads.rows.empty())
    page.table_section(heads, "heads", "Heads");
  const Table capacity = ab_capacity_table(report);
  page.open("capacity", capacity.title, "Capacity", capacity.caption);
  page.chart("capacity", "Tokens and sequences that a budget holds", "");
  page.table(unnamed(capacity, capacity.title), false);
  page.close();
}

void passkey_section(HtmlPage& page, const Json& report) {
  const Table rows = ab_passkey_table(report);
  if (rows.rows.empty()) return;
  page.open("passkey", rows.title, "Passkey",
            rows.caption + " Crossed cells are those at which the base answers less often: not informative.");
  page.chart("passkey", "Exact answers by length of the prompt and depth of the key, for each recipe",
             "passkey");
  page.table(unnamed(rows, rows.title), false);
  page.table(ab_passkey_cell_table(report), true);
  page.close();
}

void time_section(HtmlPage& page, const Json& report) {
  const Table time = ab_time_table(report), codec = ab_codec_table(report);
  if (time.rows.empty() && codec.rows.empty()) return;
  page.open("time", "Time", "Time", time.rows.empty() ? "No speed was measured in this run." : time.caption);
  if (!time.rows.empty()) {
    page.chart("speed", "Tokens a second when decoding and in prefill", "");
    page.table(unnamed(time, time.title), false);
  }
  if (!codec.rows.empty()) page.table(codec, true);
  page.close();
}

void run_sections(HtmlPage& page, const Json& report) {
  page.open("run", "What was measured, and with what", "Run");
  page.add("<div class=\"two\"><div>\n<h3>Model and run</h3>\n" + to_html(identity_table(report)));
  page.add("</div><div>\n<h3>Text, memory and time</h3>\n" + to_html(ab_run_table(report)) +
           "</div></div>\n");
  page.close();
  page.table_section(definition_table(report), "definitions", "Terms");
  page.table_section(option_table(report), "options", "Options");
}

Json row_data(const Json& row) {
  Json data = Json::object();
  for (const char* member : {"recipe",
                             "family",
                             "effect",
                             "dense_f16_bytes",
                             "bytes_held",
                             "bits_per_value",
                             "bits_per_value_over_time",
                             "compression",
                             "ledger",
                             "layers",
                             "capacity",
                             "perplexity",
                             "delta_perplexity",
                             "kl_mean",
                             "kl_p99",
                             "top1_agreement",
                             "intervals",
                             "on_front",
                             "prefill_tokens_per_s",
                             "decode_tokens_per_s",
                             "kl_by_position"})
    data[member] = row.at(member);
  if (const auto error = row.find("layer_error"); error != row.end()) data["layer_error"] = *error;
  return data;
}

// The base first; accuracies by length, then depth.
Json passkey_data(const Json& passkey) {
  Json data = {{"lengths", passkey.at("lengths")}, {"depths", passkey.at("depths")}};
  data["informative"] = Json::array();
  for (const Json& cell : passkey.at("cells")) data["informative"].push_back(cell.at("informative"));
  data["rows"] = Json::array();
  const auto add = [&](const Json& row, const std::string& name) {
    Json accuracies = Json::array();
    for (const Json& cell : row.at("cells")) accuracies.push_back(cell.at("accuracy"));
    data["rows"].push_back({{"recipe", name}, {"accuracy", std::move(accuracies)}});
  };
  add(passkey.at("base"), "the base, " + text_at(passkey.at("base"), "recipe"));
  for (const Json& row : passkey.at("rows"))
    if (data["rows"].size() <= kDrawnRows) add(row, text_at(row, "recipe"));
  return data;
}

}  // namespace

void add_judged_recipes(Json& data, const Json& report) {
  data["protocol"] = report.at("ab").at("protocol");
  data["parts"] = Json::array();
  for (const auto& [key, name] : kHeldParts) data["parts"].push_back({{"key", key}, {"name", name}});
  data["rows"] = Json::array();
  for (const Json* row : drawn_rows(report)) data["rows"].push_back(row_data(*row));
  data["noise_floor"] = Json::array();
  for (const Json& row : report.at("ab").at("noise_floor"))
    data["noise_floor"].push_back({{"recipe", row.at("recipe")},
                                   {"chunk_tokens", row.at("chunk_tokens")},
                                   {"kl_mean", row.at("kl_mean")}});
}

std::string ab_page_data(const Json& report) {
  Json data = {{"model", report.at("model")}};
  add_judged_recipes(data, report);
  if (const Json* passkey = passkey_of(report)) data["passkey"] = passkey_data(*passkey);
  round_numbers(data);
  return script_data(data);
}

void judged_recipes_section(HtmlPage& page, const Json& report) {
  const Table rows = ab_table(report);
  page.open("recipes", "What compressing these pages saves and costs", "Recipes");
  for (const std::string& sentence : ab_protocol_sentences(report)) page.paragraph(sentence);
  page.findings(ab_findings(report));
  page.table(rows, false);
  page.paragraph(kFrontCaption);
  page.chart("front", "Mean KL against bits a number, every recipe a point", "quality_front");
  page.table(ab_interval_table(report), true);
  page.table(ab_bytes_table(report), true);
  if (const Table codec = ab_codec_table(report); !codec.rows.empty()) page.table(codec, true);
  page.close();
}

std::string ab_html(const PageSource& source) {
  const Json& report = source.report;
  HtmlPage page(source);
  findings_section(page, report);
  row_sections(page, report);
  quality_sections(page, report);
  passkey_section(page, report);
  byte_sections(page, report);
  time_section(page, report);
  run_sections(page, report);
  return page.finish({"KV-cache recipes on " + text_at(report.at("model"), "name"),
                      "kvanalyze · what compressing the KV cache saves, and what it costs",
                      page.interactive() ? ab_page_data(report) : "",
                      {"label_layout.js", "ab_view.js", "charts_quality.js", "charts_bytes.js",
                       "charts_passkey.js", "ab_page.js"}});
}

}  // namespace kva
