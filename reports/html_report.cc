#include "reports/html_report.h"

#include <fmt/format.h>

#include <cmath>
#include <nlohmann/json.hpp>
#include <string_view>
#include <vector>

#include "kernels/check.h"
#include "reports/assets.h"
#include "reports/findings.h"
#include "reports/report_view.h"
#include "reports/tables.h"
#include "reports/text_format.h"

namespace kva {
namespace {

struct Page {
  const Json& report;
  const PlotSet& plots;
  const std::map<std::string, std::string>& png_bytes;
  bool interactive;
  std::string sections;
  std::string navigation;
};

// {{name}} once each, in one pass: what is put in is never looked at again.
std::string fill(std::string_view page, const std::map<std::string, std::string>& values) {
  std::string out;
  for (std::size_t at = 0; at < page.size();) {
    const std::size_t open = page.find("{{", at);
    out += page.substr(at, open == std::string_view::npos ? open : open - at);
    if (open == std::string_view::npos) break;
    const std::size_t close = page.find("}}", open);
    const auto value = values.find(std::string(page.substr(open + 2, close - open - 2)));
    KVA_CHECK(value != values.end(), "page.html names a part that is not made");
    out += value->second;
    at = close + 2;
  }
  return out;
}

std::string png_images(const Page& page, std::string_view prefix) {
  std::string out;
  for (const Plot& plot : page.plots.plots) {
    const auto bytes = page.png_bytes.find(plot.file);
    if (plot.file.rfind(prefix, 0) != 0 || bytes == page.png_bytes.end()) continue;
    out += fmt::format("<img class=\"fallback\" alt=\"{}\" src=\"data:image/png;base64,{}\">\n",
                       escape_html(plot.title + ". " + plot.caption), base64_encode(bytes->second));
  }
  return out;
}

void open_section(Page& page, const std::string& id, const std::string& title, const std::string& short_title,
                  const std::string& caption) {
  page.navigation += fmt::format("<a href=\"#{}\">{}</a>\n", id, escape_html(short_title));
  page.sections +=
      fmt::format("<section id=\"{}\" aria-labelledby=\"{}-title\">\n<h2 id=\"{}-title\">{}</h2>\n", id, id,
                  id, escape_html(title));
  if (!caption.empty()) page.sections += fmt::format("<p class=\"caption\">{}</p>\n", escape_html(caption));
}

// A place where report.js draws `name`, with its controls; without plotly the PNGs of the same content.
void chart(Page& page, const std::string& name, const std::string& label, std::string_view png_prefix) {
  if (!page.interactive) {
    page.sections += png_prefix.empty() ? "" : png_images(page, png_prefix);
    return;
  }
  page.sections += fmt::format(
      "<div class=\"controls\" id=\"controls-{0}\"></div>\n<div class=\"chart\" id=\"chart-{0}\" "
      "data-chart=\"{0}\" "
      "role=\"img\" aria-label=\"{1}\"></div>\n<noscript><p class=\"none\">This chart needs scripts; the "
      "tables do not.</p></noscript>\n",
      name, escape_html(label));
}

void close_section(Page& page) { page.sections += "</section>\n"; }

void table(Page& page, const Table& content, bool folded) {
  const std::string html = to_html(content);
  const std::string caption =
      content.caption.empty() ? ""
                              : fmt::format("<p class=\"caption\">{}</p>\n", escape_html(content.caption));
  page.sections += folded ? fmt::format("<details><summary>{} as a table</summary>\n{}{}</details>\n",
                                        escape_html(content.title), caption, html)
                          : caption + html;
}

void findings_section(Page& page) {
  open_section(page, "findings", "Findings", "Findings", "");
  page.sections += "<div class=\"cards\">\n";
  const auto findings = report_findings(page.report);
  for (const Finding& finding : findings)
    if (!finding.value.empty())
      page.sections += fmt::format(
          "<div class=\"card\"><div class=\"value\">{}</div><div class=\"label\">{}</div></div>\n",
          escape_html(finding.value), escape_html(finding.label));
  page.sections += "</div>\n<ul class=\"findings\">\n";
  for (const Finding& finding : findings)
    page.sections += fmt::format("<li>{}</li>\n", escape_html(finding.sentence));
  page.sections += "</ul>\n";
  close_section(page);
}

void run_section(Page& page) {
  open_section(page, "run", "What was measured, and with what", "Run", "");
  page.sections +=
      "<div class=\"two\"><div>\n<h3>Model and run</h3>\n" + to_html(identity_table(page.report));
  page.sections +=
      "</div><div>\n<h3>Bytes and time</h3>\n" + to_html(cache_table(page.report)) + "</div></div>\n";
  close_section(page);
}

void set_sections(Page& page) {
  const Table sets = sets_table(page.report);
  open_section(page, "sets", sets.title, "Sets", sets.caption);
  page.sections += to_html(sets);
  table(page, prompts_table(page.report), true);
  close_section(page);
  open_section(page, "distribution", "How alike two pages are", "Distribution",
               "Each line is the distribution of similarity over all pairs of pages of one prompt set; "
               "dashed: the same for pages made "
               "of shuffled tokens, what similarity of single tokens alone gives.");
  chart(page, "distribution", "Distribution of page similarity for each prompt set",
        "similarity_distribution");
  close_section(page);
  const Table differences = difference_table(page.report);
  open_section(page, "differences", differences.title, "Differences", differences.caption);
  if (!differences.rows.empty())
    chart(page, "differences", "Differences between prompt sets with intervals", "set_comparison");
  if (differences.rows.empty())
    page.sections += "<p class=\"none\">There is one prompt set, so there is nothing to compare.</p>\n";
  if (!differences.rows.empty())
    table(page, {differences.id, "All comparisons", "", differences.columns, differences.rows}, true);
  close_section(page);
}

void layer_sections(Page& page) {
  open_section(
      page, "layers", "Layer by layer", "Layers",
      "Above: mean similarity of all pairs of pages in a layer, with the band that holds 90% of them. Below: "
      "the share of pages "
      "with at least one partner over the threshold. Dashed: shuffled tokens; dotted: random pairs.");
  chart(page, "layers", "Similarity and redundancy by layer", "layer_similarity");
  table(page, redundancy_table(page.report), true);
  close_section(page);
  open_section(page, "opportunities", "What sharing pages could free", "Opportunities",
               "Bytes of the pages that have a kept representative more similar than the threshold, in their "
               "own layer and KV head. Dashed: "
               "the same on shuffled tokens; what lies above it is there because pages repeat.");
  chart(page, "opportunities", "Bytes that could be freed by layer and threshold",
        "compression_opportunities");
  table(page, opportunity_table(page.report), false);
  close_section(page);
}

void structure_sections(Page& page) {
  open_section(page, "heatmap", "Every page against every page", "Heatmap",
               "Mean centred cosine of the pages in each cell, a page with itself left out; pages in order "
               "of prompts, lines between prompt "
               "sets, one colour scale for all layers.");
  chart(page, "heatmap", "Page by page similarity", "heatmap_layer_");
  close_section(page);
  open_section(page, "across", "The same page in different layers", "Across layers",
               "Left: mean centred cosine of a page in one layer with the same page in another (a layer with "
               "itself left out). Right: "
               "neighbouring layers, beside random pairs (dotted) and shuffled tokens (dashed).");
  page.sections += page.interactive ? "<div class=\"two\"><div>\n" : "";
  chart(page, "matrix", "Similarity between layers", "cross_layer");
  page.sections += page.interactive ? "</div><div>\n" : "";
  chart(page, "adjacent", "Similarity of neighbouring layers", "");
  page.sections += page.interactive ? "</div></div>\n" : "";
  close_section(page);
  open_section(page, "growth", "Redundancy as the context grows", "Growth",
               "Share of the pages so far that have an earlier partner in the same prompt over the "
               "threshold, averaged over layers; dashed: "
               "shuffled tokens.");
  chart(page, "growth", "Redundancy by context length", "growth");
  close_section(page);
}

void detail_sections(Page& page) {
  const Table clusters = cluster_table(page.report);
  open_section(page, "clusters", clusters.title, "Clusters", clusters.caption);
  chart(page, "clusters", "Variance explained by clusters, and bytes freed", "");
  table(page, {clusters.id, "Clusters", "", clusters.columns, clusters.rows}, page.interactive);
  close_section(page);
  const Table duplicates = duplicate_table(page.report);
  open_section(page, "duplicates", duplicates.title, "Duplicates", duplicates.caption);
  page.sections += to_html(duplicates);
  close_section(page);
  if (page.interactive) {
    open_section(page, "heads", "Head by head", "Heads",
                 "One KV head at a time: the colour and the table show the same figures.");
    chart(page, "heads", "Redundancy by layer and head", "");
    page.sections += "<div id=\"table-heads\"></div>\n";
    close_section(page);
  }
  const Table norms = norm_table(page.report);
  open_section(page, "norms", norms.title, "Norms", norms.caption);
  chart(page, "norms", "Norms and outlier channels by layer", "");
  table(page, {norms.id, "Norms", "", norms.columns, norms.rows}, page.interactive);
  close_section(page);
  open_section(page, "definitions", "What the terms mean", "Terms", "");
  page.sections += to_html(definition_table(page.report));
  close_section(page);
  open_section(page, "options", "Every option of the run", "Options", "");
  page.sections += to_html(option_table(page.report));
  close_section(page);
}

std::string identity_line(const Json& report) {
  const Json& model = report.at("model");
  const Json& run = report.at("provenance");
  std::string line;
  for (const std::string& part :
       {text_at(model, "repository"), text_at(model, "revision"), text_at(model, "variant"),
        text_at(model, "source_quantization"), "weights " + text_at(model, "weights"),
        text_at(model, "tensor_hash"), "recipe " + text_at(run, "recipe"), text_at(run, "started")})
    if (!part.empty() && part != "none") line += (line.empty() ? "" : " · ") + part;
  return escape_html(one_line(line, 600));
}

std::string notes_of(const Page& page) {
  std::string notes;
  const auto add = [&](const std::string& note) {
    notes += fmt::format("<p class=\"note\">{}</p>\n", escape_html(note));
  };
  if (!page.interactive) {
    for (const std::string& note : page.plots.notes) add(note);
    add("Charts are still pictures here. For interactive ones run scripts/fetch_plotly.py, then `kvanalyze "
        "render report.json` (or give "
        "it --plotly FILE).");
  }
  return notes;
}

// Numbers to six digits: more than a chart shows, in half the bytes.
void round_numbers(Json& value) {
  if (value.is_number_float()) value = std::stod(fmt::format("{:.6g}", value.get<double>()));
  if (value.is_structured())
    for (Json& member : value) round_numbers(member);
}

void drop(Json& object, std::initializer_list<const char*> members) {
  for (const char* member : members) object.erase(member);
}

}  // namespace

std::string page_data(const Json& report) {
  Json data = Json::object();
  for (const char* member :
       {"model", "sets", "thresholds", "histogram_bins", "similarity", "adjacent_layers", "layer_matrix",
        "heatmaps", "heatmap_sets", "clusters", "opportunity", "growth", "set_differences", "norms"})
    data[member] = report.at(member);
  data["key_basis"] = report.at("cache").at("key_basis");
  data["page_tokens"] = report.at("cache").at("page_tokens");
  for (Json& row : data["similarity"]) {
    Json& controls = row["controls"];
    drop(controls["random"], {"pairs", "std", "percentiles", "share_over"});
    drop(controls["shuffled"], {"pairs", "std", "percentiles", "share_over"});
    drop(row, {"std", "share_over"});
    if (row["histogram"].is_null()) drop(row, {"histogram"});
  }
  for (Json& row : data["adjacent_layers"]) {
    drop(row, {"std", "percentiles", "share_over"});
    for (Json& control : row["controls"]) drop(control, {"pairs", "std", "percentiles", "share_over"});
  }
  round_numbers(data);
  return escape_script_json(data.dump(-1, ' ', false, Json::error_handler_t::replace));
}

std::string html_report(const Json& report, const PlotSet& plots,
                        const std::map<std::string, std::string>& png_bytes, const std::string& plotly_js) {
  Page page{report, plots, png_bytes, !plotly_js.empty(), "", ""};
  findings_section(page);
  run_section(page);
  set_sections(page);
  layer_sections(page);
  structure_sections(page);
  detail_sections(page);
  const std::string name = escape_html(one_line(text_at(report.at("model"), "name")));
  std::string script;
  for (const char* file : {"core.js", "tables.js", "charts_similarity.js", "charts_structure.js", "main.js"})
    script += asset(file);
  return fill(asset("page.html"),
              {{"title", "KV-cache redundancy of " + name},
               {"css", std::string(asset("report.css"))},
               {"model", name},
               {"identity", identity_line(report)},
               {"navigation", page.navigation},
               {"notes", notes_of(page)},
               {"sections", page.sections},
               {"footer", escape_html(fmt::format(
                              "Made by kvanalyze {} (commit {}) from report.json, which holds every number. "
                              "This page is complete in itself and fetches nothing.",
                              text_at(report.at("provenance"), "version"),
                              text_at(report.at("provenance"), "commit")))},
               {"data", page.interactive ? page_data(report) : "{}"},
               {"plotly", page.interactive ? "<script>" + plotly_js + "</script>" : ""},
               {"script", script}});
}

}  // namespace kva
