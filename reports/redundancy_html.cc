#include "reports/redundancy_html.h"

#include <nlohmann/json.hpp>

#include "reports/ab_html.h"
#include "reports/report_view.h"

namespace kva {
namespace {

void run_section(HtmlPage& page, const Json& report) {
  page.open("run", "What was measured, and with what", "Run");
  page.add("<div class=\"two\"><div>\n<h3>Model and run</h3>\n" + to_html(identity_table(report)));
  page.add("</div><div>\n<h3>Bytes and time</h3>\n" + to_html(cache_table(report)) + "</div></div>\n");
  page.close();
}

void set_sections(HtmlPage& page, const Json& report) {
  const Table sets = sets_table(report);
  page.open("sets", sets.title, "Sets", sets.caption);
  page.add(to_html(sets));
  page.table(prompts_table(report), true);
  page.close();
  page.open("distribution", "How alike two pages are", "Distribution",
            "Each line is the distribution of similarity over all pairs of pages of one prompt set; "
            "dashed: the same for pages made "
            "of shuffled tokens, what similarity of single tokens alone gives.");
  page.chart("distribution", "Distribution of page similarity for each prompt set",
             "similarity_distribution");
  page.close();
  const Table differences = difference_table(report);
  page.open("differences", differences.title, "Differences", differences.caption);
  if (!differences.rows.empty())
    page.chart("differences", "Differences between prompt sets with intervals", "set_comparison");
  if (differences.rows.empty())
    page.add("<p class=\"none\">There is one prompt set, so there is nothing to compare.</p>\n");
  if (!differences.rows.empty())
    page.table({differences.id, "All comparisons", "", differences.columns, differences.rows}, true);
  page.close();
}

void layer_sections(HtmlPage& page, const Json& report) {
  page.open(
      "layers", "Layer by layer", "Layers",
      "Above: mean similarity of all pairs of pages in a layer, with the band that holds 90% of them. Below: "
      "the share of pages "
      "with at least one partner over the threshold. Dashed: shuffled tokens; dotted: random pairs.");
  page.chart("layers", "Similarity and redundancy by layer", "layer_similarity");
  page.table(redundancy_table(report), true);
  page.close();
  page.open("opportunities", "What sharing pages could free", "Opportunities",
            "Bytes of the pages that have a kept representative more similar than the threshold, in their "
            "own layer and KV head. Dashed: "
            "the same on shuffled tokens; what lies above it is there because pages repeat.");
  page.chart("opportunities", "Bytes that could be freed by layer and threshold",
             "compression_opportunities");
  page.table(opportunity_table(report), false);
  page.close();
}

void structure_sections(HtmlPage& page) {
  page.open("heatmap", "Every page against every page", "Heatmap",
            "Mean centred cosine of the pages in each cell, a page with itself left out; pages in order "
            "of prompts, lines between prompt "
            "sets, one colour scale for all layers.");
  page.chart("heatmap", "Page by page similarity", "heatmap_layer_");
  page.close();
  page.open("across", "The same page in different layers", "Across layers",
            "Left: mean centred cosine of a page in one layer with the same page in another (a layer with "
            "itself left out). Right: "
            "neighbouring layers, beside random pairs (dotted) and shuffled tokens (dashed).");
  page.add(page.interactive() ? "<div class=\"two\"><div>\n" : "");
  page.chart("matrix", "Similarity between layers", "cross_layer");
  page.add(page.interactive() ? "</div><div>\n" : "");
  page.chart("adjacent", "Similarity of neighbouring layers", "");
  page.add(page.interactive() ? "</div></div>\n" : "");
  page.close();
  page.open("growth", "Redundancy as the context grows", "Growth",
            "Share of the pages so far that have an earlier partner in the same prompt over the "
            "threshold, averaged over layers; dashed: "
            "shuffled tokens.");
  page.chart("growth", "Redundancy by context length", "growth");
  page.close();
}

void detail_sections(HtmlPage& page, const Json& report) {
  const Table clusters = cluster_table(report);
  page.open("clusters", clusters.title, "Clusters", clusters.caption);
  page.chart("clusters", "Variance explained by clusters, and bytes freed", "");
  page.table({clusters.id, "Clusters", "", clusters.columns, clusters.rows}, page.interactive());
  page.close();
  page.table_section(duplicate_table(report), "duplicates", "Duplicates");
  if (page.interactive()) {
    page.open("heads", "Head by head", "Heads",
              "One KV head at a time: the colour and the table show the same figures.");
    page.chart("heads", "Redundancy by layer and head", "");
    page.add("<div id=\"table-heads\"></div>\n");
    page.close();
  }
  const Table norms = norm_table(report);
  page.open("norms", norms.title, "Norms", norms.caption);
  page.chart("norms", "Norms and outlier channels by layer", "");
  page.table({norms.id, "Norms", "", norms.columns, norms.rows}, page.interactive());
  page.close();
  page.table_section(definition_table(report), "definitions", "Terms");
  page.table_section(option_table(report), "options", "Options");
}

void drop(Json& object, std::initializer_list<const char*> members) {
  for (const char* member : members) object.erase(member);
}

}  // namespace

std::string redundancy_page_data(const Json& report) {
  Json data = Json::object();
  for (const char* member :
       {"model", "sets", "thresholds", "histogram_bins", "similarity", "adjacent_layers", "layer_matrix",
        "heatmaps", "heatmap_sets", "clusters", "opportunity", "growth", "set_differences", "norms"})
    data[member] = report.at(member);
  if (report.contains("ab")) add_judged_recipes(data, report);
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
  return script_data(data);
}

std::string redundancy_html(const PageSource& source) {
  const Json& report = source.report;
  HtmlPage page(source);
  page.open("findings", "Findings", "Findings");
  page.findings(report_findings(report));
  page.close();
  run_section(page, report);
  if (report.contains("ab")) judged_recipes_section(page, report);
  set_sections(page, report);
  layer_sections(page, report);
  structure_sections(page);
  detail_sections(page, report);
  return page.finish({"KV-cache redundancy of " + text_at(report.at("model"), "name"),
                      "kvanalyze · where the KV cache repeats itself",
                      page.interactive() ? redundancy_page_data(report) : "",
                      {"redundancy_view.js", "charts_similarity.js", "charts_structure.js", "label_layout.js",
                       "ab_view.js", "charts_quality.js", "redundancy_page.js"}});
}

}  // namespace kva
