// The frame that every report.html shares: sections and their navigation, tables, places for charts,
// identity.
#pragma once

#include <initializer_list>
#include <map>
#include <nlohmann/json_fwd.hpp>
#include <string>
#include <string_view>
#include <vector>

#include "reports/findings.h"
#include "reports/plots.h"
#include "reports/tables.h"

namespace kva {

// What a page is made from, all kept by reference: a report that has passed check_report(), its plots, their
// bytes (file name -> contents), and plotly.min.js, empty for a page of tables and pictures.
struct PageSource {
  const nlohmann::ordered_json& report;
  const PlotSet& plots;
  const std::map<std::string, std::string>& png_bytes;
  const std::string& plotly_js;
  bool interactive() const { return !plotly_js.empty(); }
};

// What differs between kinds of pages beside their sections; not yet escaped but for `data`.
struct PageFrame {
  std::string title;
  std::string eyebrow;                         // one line above the model's name
  std::string data;                            // JSON, safe inside a <script> element
  std::initializer_list<const char*> scripts;  // assets of this kind, in order, beside those of all pages
  // For pages that are not of one model and one report.json.
  std::string heading = {};  // instead of the model's name
  std::string lead = {};     // instead of the model's identity
  std::string source = "report.json";
  std::string again = "kvanalyze render report.json";  // the command that makes the page once more
};

// Text is escaped here; ids, chart names and PNG prefixes are ours.
class HtmlPage {
 public:
  explicit HtmlPage(const PageSource& source) : source_(source) {}

  bool interactive() const { return source_.interactive(); }
  void open(const std::string& id, const std::string& title, const std::string& short_title,
            const std::string& caption = "");
  void close() { sections_ += "</section>\n"; }
  void add(const std::string& html) { sections_ += html; }
  void paragraph(const std::string& text, std::string_view css_class = "caption");
  // A place where the scripts draw `name`, with its controls; on a page of pictures the PNGs whose file names
  // begin with `png_prefix`, if it is not empty.
  void chart(const std::string& name, const std::string& label, std::string_view png_prefix);
  // With its caption; folded: behind a line to click on.
  void table(const Table& table, bool folded);
  // A section that is one table.
  void table_section(const Table& table, const std::string& id, const std::string& short_title);
  // A sentence that the scripts write about the chart of this name.
  void sentence_of(const std::string& name);
  // Cards for those with a value, then every sentence.
  void findings(const std::vector<Finding>& findings);
  std::string finish(const PageFrame& frame) const;

 private:
  std::string notes(const PageFrame& frame) const;

  const PageSource& source_;
  std::string sections_;
  std::string navigation_;
};

// Numbers to six digits: more than a chart shows, in half the bytes.
void round_numbers(nlohmann::ordered_json& value);
// Text for PageFrame::data.
std::string script_data(const nlohmann::ordered_json& data);

}  // namespace kva
