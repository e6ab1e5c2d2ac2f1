#include "reports/markdown_report.h"

#include <fmt/format.h>

#include <algorithm>
#include <nlohmann/json.hpp>

#include "reports/ab_findings.h"
#include "reports/ab_tables.h"
#include "reports/compress_tables.h"
#include "reports/findings.h"
#include "reports/head_decisions.h"
#include "reports/report_view.h"
#include "reports/tables.h"
#include "reports/text_format.h"

namespace kva {
namespace {

class Writer {
 public:
  explicit Writer(const PlotSet& plots) : plots_(plots) {}

  void heading(const std::string& title) { text_ += fmt::format("## {}\n\n", title); }
  void paragraph(const std::string& escaped) { text_ += escaped + "\n\n"; }

  // What the file is, what is missing, and the findings.
  void opening(const std::vector<Finding>& findings) {
    paragraph("Made from `report.json`, which has every number. `report.html` is the same, interactive.");
    for (const std::string& note : plots_.notes) paragraph("> " + escape_markdown(note));
    heading("Findings");
    for (const Finding& finding : findings)
      if (!finding.sentence.empty()) text_ += "- " + escape_markdown(finding.sentence) + "\n";
    text_ += "\n";
  }
  void section(const Table& table, const std::string& plot = "") {
    heading(table.title);
    this->plot(plot);
    this->table(table);
  }
  void table(const Table& table) {
    if (!table.caption.empty()) paragraph(escape_markdown(table.caption));
    text_ += table.rows.empty() ? "Nothing to show here.\n\n" : to_markdown(table) + "\n";
  }
  void plot(const std::string& file) {
    for (const Plot& plot : plots_.plots)
      if (plot.file == file)
        text_ += fmt::format("![{0}](plots/{1})\n\n*{2}*\n\n", escape_markdown(plot.title), plot.file,
                             escape_markdown(plot.caption));
  }
  bool has(const std::string& file) const {
    return std::any_of(plots_.plots.begin(), plots_.plots.end(),
                       [&](const Plot& plot) { return plot.file == file; });
  }
  std::string take() { return std::move(text_); }

 private:
  const PlotSet& plots_;
  std::string text_;
};

std::string heatmap_links(const PlotSet& plots) {
  std::string links;
  for (const Plot& plot : plots.plots)
    if (plot.file.rfind("heatmap_layer_", 0) == 0)
      links += fmt::format("{}[{}](plots/{})", links.empty() ? "" : " · ",
                           plot.file.substr(14, plot.file.size() - 18), plot.file);
  return links;
}

// Two-column tables name their columns, for Markdown has no table without a header.
Table named(Table table) {
  table.columns = {{"what", false}, {"value", false}};
  return table;
}

// What a report of redundancy ends with.
void judged_recipes(Writer& out, const Json& report) {
  out.heading("What compressing these pages saves and costs");
  for (const std::string& sentence : ab_protocol_sentences(report)) out.paragraph(escape_markdown(sentence));
  for (const Finding& finding : ab_findings(report))
    if (!finding.sentence.empty()) out.paragraph(escape_markdown(finding.sentence));
  out.section(ab_table(report), "quality_front.png");
  out.section(ab_interval_table(report));
  out.section(ab_bytes_table(report), "bytes_by_recipe.png");
  if (const Table codec = ab_codec_table(report); !codec.rows.empty()) out.section(codec);
}

std::string redundancy_markdown(const Json& report, const PlotSet& plots) {
  Writer out(plots);
  out.paragraph("# KV-cache redundancy of " + escape_markdown(text_at(report.at("model"), "name")));
  out.opening(report_findings(report));
  out.section(named(identity_table(report)));
  out.section(named(cache_table(report)));
  out.section(sets_table(report), "similarity_distribution.png");
  out.section(redundancy_table(report), "layer_similarity.png");
  out.section(opportunity_table(report), "compression_opportunities.png");
  out.section(difference_table(report, "cosine_centered"), "set_comparison.png");
  out.heading("Across layers");
  out.plot("cross_layer.png");
  if (const std::string links = heatmap_links(plots); !links.empty())
    out.paragraph("Every page against every page, by layer: " + links);
  out.heading("As the context grows");
  out.plot("growth.png");
  out.section(cluster_table(report));
  out.section(duplicate_table(report));
  out.section(norm_table(report));
  if (report.contains("ab")) judged_recipes(out, report);
  out.section(definition_table(report));
  out.section(option_table(report));
  std::string text = out.take();
  text.pop_back();
  return text;
}

std::string ab_markdown(const Json& report, const PlotSet& plots) {
  Writer out(plots);
  out.paragraph("# KV-cache recipes on " + escape_markdown(text_at(report.at("model"), "name")));
  out.opening(ab_findings(report));
  for (const std::string& sentence : ab_protocol_sentences(report)) out.paragraph(escape_markdown(sentence));
  out.section(ab_table(report), "quality_front.png");
  out.section(ab_interval_table(report));
  out.section(ab_noise_table(report));
  for (const Table& table : {ab_difference_table(report), ab_equal_bytes_table(report),
                             ab_against_bases_table(report), ab_turn_table(report), ab_window_table(report)})
    if (!table.rows.empty()) out.section(table);
  if (out.has("kl_by_position.png")) {
    out.heading("KL by position");
    out.plot("kl_by_position.png");
  }
  out.section(ab_bytes_table(report), "bytes_by_recipe.png");
  out.plot("layer_bytes.png");
  if (const Table errors = ab_layer_error_table(report); !errors.rows.empty())
    out.section(errors, "layer_error.png");
  if (const Table passkey = ab_passkey_table(report); !passkey.rows.empty()) {
    out.section(passkey, "passkey.png");
    out.table(ab_passkey_cell_table(report));
  }
  out.section(ab_capacity_table(report));
  for (const Table& table : {ab_time_table(report), ab_codec_table(report), ab_heads_table(report)})
    if (!table.rows.empty()) out.section(table);
  out.section(named(identity_table(report)));
  out.section(named(ab_run_table(report)));
  out.section(definition_table(report));
  out.section(option_table(report));
  std::string text = out.take();
  text.pop_back();
  return text;
}

}  // namespace

std::string markdown_report(const Json& report, const PlotSet& plots) {
  if (text_is(report, "kind", "compression")) return compress_markdown(report);
  return text_is(report, "kind", "ab") ? ab_markdown(report, plots) : redundancy_markdown(report, plots);
}

}  // namespace kva
