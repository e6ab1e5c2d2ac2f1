#include "reports/html_page.h"

#include <fmt/format.h>

#include <nlohmann/json.hpp>

#include "kernels/check.h"
#include "reports/assets.h"
#include "reports/report_view.h"
#include "reports/text_format.h"

namespace kva {
namespace {

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

std::string png_images(const PageSource& source, std::string_view prefix) {
  std::string out;
  for (const Plot& plot : source.plots.plots) {
    const auto bytes = source.png_bytes.find(plot.file);
    if (plot.file.rfind(prefix, 0) != 0 || bytes == source.png_bytes.end()) continue;
    out += fmt::format("<img class=\"fallback\" alt=\"{}\" src=\"data:image/png;base64,{}\">\n",
                       escape_html(plot.title + ". " + plot.caption), base64_encode(bytes->second));
  }
  return out;
}

std::string identity_line(const Json& report) {
  const Json& model = report.at("model");
  const Json& run = report.at("provenance");
  std::string line;
  // An A/B report has as many recipes as rows.
  const bool one_recipe = !text_is(report, "kind", "ab");
  for (const std::string& part :
       {text_at(model, "repository"), text_at(model, "revision"), text_at(model, "variant"),
        text_at(model, "source_quantization"), "weights " + text_at(model, "weights"),
        text_at(model, "tensor_hash"), one_recipe ? "recipe " + text_at(run, "recipe") : "",
        text_at(run, "started")})
    if (!part.empty() && part != "none") line += (line.empty() ? "" : " · ") + part;
  return escape_html(one_line(line, 600));
}

}  // namespace

void HtmlPage::open(const std::string& id, const std::string& title, const std::string& short_title,
                    const std::string& caption) {
  navigation_ += fmt::format("<a href=\"#{}\">{}</a>\n", id, escape_html(short_title));
  sections_ +=
      fmt::format("<section id=\"{0}\" aria-labelledby=\"{0}-title\">\n<h2 id=\"{0}-title\">{1}</h2>\n", id,
                  escape_html(title));
  if (!caption.empty()) paragraph(caption);
}

void HtmlPage::paragraph(const std::string& text, std::string_view css_class) {
  sections_ += fmt::format("<p class=\"{}\">{}</p>\n", css_class, escape_html(text));
}

void HtmlPage::chart(const std::string& name, const std::string& label, std::string_view png_prefix) {
  if (!interactive()) {
    sections_ += png_prefix.empty() ? "" : png_images(source_, png_prefix);
    return;
  }
  sections_ += fmt::format(
      "<div class=\"controls\" id=\"controls-{0}\"></div>\n<div class=\"chart\" id=\"chart-{0}\" "
      "data-chart=\"{0}\" role=\"img\" aria-label=\"{1}\"></div>\n<noscript><p class=\"none\">This chart "
      "needs "
      "scripts; the tables do not.</p></noscript>\n",
      name, escape_html(label));
}

void HtmlPage::sentence_of(const std::string& name) {
  sections_ += fmt::format("<p class=\"caption\" id=\"says-{}\"></p>\n", name);
}

void HtmlPage::table(const Table& table, bool folded) {
  if (folded)
    sections_ += fmt::format("<details><summary>{} as a table</summary>\n", escape_html(table.title));
  if (!table.caption.empty()) paragraph(table.caption);
  sections_ += to_html(table);
  if (folded) sections_ += "</details>\n";
}

void HtmlPage::table_section(const Table& table, const std::string& id, const std::string& short_title) {
  open(id, table.title, short_title, table.caption);
  sections_ += to_html(table);
  close();
}

void HtmlPage::findings(const std::vector<Finding>& findings) {
  sections_ += "<div class=\"cards\">\n";
  for (const Finding& finding : findings)
    if (!finding.value.empty())
      sections_ += fmt::format(
          "<div class=\"card\"><div class=\"value\">{}</div><div class=\"label\">{}</div></div>\n",
          escape_html(finding.value), escape_html(finding.label));
  sections_ += "</div>\n<ul class=\"findings\">\n";
  for (const Finding& finding : findings)
    if (!finding.sentence.empty()) sections_ += fmt::format("<li>{}</li>\n", escape_html(finding.sentence));
  sections_ += "</ul>\n";
}

std::string HtmlPage::notes(const PageFrame& frame) const {
  if (interactive()) return "";
  std::string notes;
  const auto add = [&](const std::string& note) {
    notes += fmt::format("<p class=\"note\">{}</p>\n", escape_html(note));
  };
  for (const std::string& note : source_.plots.notes) add(note);
  add(
      fmt::format("Charts are still pictures here. For interactive ones run scripts/fetch_plotly.py, then "
                  "`{}` (or give it "
                  "--plotly FILE).",
                  frame.again));
  return notes;
}

std::string HtmlPage::finish(const PageFrame& frame) const {
  const Json& run = source_.report.at("provenance");
  std::string script;
  for (const char* file : {"core.js", "tables.js"}) script += asset(file);
  for (const char* file : frame.scripts) script += asset(file);
  script += asset("main.js");
  return fill(
      asset("page.html"),
      {{"title", escape_html(frame.title)},
       {"css", std::string(asset("report.css"))},
       {"eyebrow", escape_html(frame.eyebrow)},
       {"model", escape_html(one_line(frame.heading.empty() ? text_at(source_.report.at("model"), "name")
                                                            : frame.heading))},
       {"identity", frame.lead.empty() ? identity_line(source_.report) : escape_html(frame.lead)},
       {"navigation", navigation_},
       {"notes", notes(frame)},
       {"sections", sections_},
       {"footer", escape_html(fmt::format("Made by kvanalyze {} (commit {}) from {}, which holds "
                                          "every number. This page is complete in itself and fetches "
                                          "nothing.",
                                          text_at(run, "version"), text_at(run, "commit"), frame.source))},
       {"data", frame.data.empty() ? "{}" : frame.data},
       {"plotly", interactive() ? "<script>" + source_.plotly_js + "</script>" : ""},
       {"script", script}});
}

void round_numbers(Json& value) {
  if (value.is_number_float()) value = std::stod(fmt::format("{:.6g}", value.get<double>()));
  if (value.is_structured())
    for (Json& member : value) round_numbers(member);
}

std::string script_data(const Json& data) {
  return escape_script_json(data.dump(-1, ' ', false, Json::error_handler_t::replace));
}

}  // namespace kva
