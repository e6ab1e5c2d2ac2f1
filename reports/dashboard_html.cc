// dashboard.html: the frame, its sections, and the data that its scripts draw from.
#include <fmt/format.h>

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <nlohmann/json.hpp>
#include <set>
#include <string>
#include <unordered_map>

#include "reports/dashboard_forms.h"
#include "reports/html_page.h"
#include "reports/json_number.h"
#include "reports/provenance.h"
#include "reports/report_view.h"
#include "reports/strategy_comparison.h"
#include "reports/text_format.h"
#include "runtime/io/utf8.h"

namespace kva {
namespace {

// Shared by all trials, so that the page of a long run opens too.
constexpr std::size_t kNumbersInSeries = 1500000;
constexpr std::size_t kTextBytes = std::size_t{24} << 20;
constexpr std::size_t kLeastPoints = 12, kMostPoints = 160;
constexpr std::size_t kLeastTextBytes = 300, kMostTextBytes = 20000;

Json number(double value) {
  if (std::isfinite(value) && std::abs(value) < 9e15 && value == std::floor(value))
    return static_cast<int64_t>(value);
  return rounded(value);
}

// Every k-th, so that at most `most` are left, and the last.
Json series(const std::vector<double>& values, std::size_t most) {
  Json list = Json::array();
  const std::size_t kept = std::min(values.size(), most);
  for (std::size_t i = 0; i < kept; ++i)
    list.push_back(number(values[kept == 1 ? values.size() - 1 : i * (values.size() - 1) / (kept - 1)]));
  return list;
}

// Texts that trials share are kept once: number -> text.
class Texts {
 public:
  explicit Texts(std::size_t most_bytes) : most_bytes_(most_bytes) {}

  int64_t add(const std::string& text) {
    const auto [place, is_new] = places_.try_emplace(text, static_cast<int64_t>(texts_.size()));
    if (is_new) {
      const bool cut = text.size() > most_bytes_;
      const std::string_view kept = std::string_view(text).substr(0, most_bytes_);
      texts_.push_back(cut ? std::string(kept.substr(0, finished_utf8(kept))) + "…" : text);
      cut_ += cut ? 1 : 0;
    }
    return place->second;
  }
  Json take() { return std::move(texts_); }
  int64_t cut() const { return cut_; }

 private:
  std::size_t most_bytes_;
  std::unordered_map<std::string, int64_t> places_;
  Json texts_ = Json::array();
  int64_t cut_ = 0;
};

// Members that the trial has; what it lacks is not there.
void put(Json& object, const char* key, double value) {
  if (!std::isnan(value)) object[key] = number(value);
}

Json timing_data(const TrialRow& row, std::size_t points) {
  const TrialTiming& timing = row.timing;
  Json data = Json::object();
  put(data, "prefill_s", timing.prefill_s);
  put(data, "first_token_s", timing.first_token_s);
  put(data, "generation_s", timing.generation_s);
  put(data, "total_s", timing.total_s);
  put(data, "codec_s", timing.codec_s);
  put(data, "observe_s", timing.observe_s);
  put(data, "token_s", row.token_time());
  put(data, "token_p95_s", timing.token_p95_s);
  data["at"] = series(timing.token_at, points);
  data["tokens"] = series(timing.token_s, points);
  return data;
}

Json quality_data(const TrialRow& row) {
  const TrialQuality& quality = row.quality;
  Json data = Json::object();
  put(data, "perplexity", quality.perplexity);
  put(data, "perplexity_base", quality.perplexity_base);
  put(data, "kl_mean", quality.kl_mean);
  put(data, "kl_max", quality.kl_max);
  put(data, "top1_agreement", quality.top1_agreement);
  put(data, "rouge_l", quality.rouge_l);
  put(data, "edit_distance", quality.edit_distance);
  put(data, "scored_tokens", quality.scored_tokens);
  return data;
}

Json ledger_data(const TrialRow& row) {
  const TrialLedger& ledger = row.ledger;
  Json data = Json::object();
  put(data, "held", ledger.held());
  put(data, "payload", ledger.payload);
  put(data, "scales", ledger.scales);
  put(data, "side", ledger.side);
  put(data, "tables", ledger.tables);
  put(data, "slack", ledger.slack);
  put(data, "workspace", ledger.workspace);
  put(data, "peak", ledger.peak);
  put(data, "process_peak", row.process_peak);
  return data;
}

Json trial_data(const TrialRow& row, std::size_t points, Texts& names, Texts& texts) {
  Json data = {{"line", row.line},
               {"trial", row.trial},
               {"model", names.add(row.model)},
               {"strategy", names.add(row.strategy)},
               {"set", names.add(row.prompt_set)},
               {"sample", names.add(row.sample)},
               {"recipe", names.add(row.recipe)},
               {"ok", row.ok},
               {"baseline", row.is_baseline()},
               {"device", names.add(row.device)}};
  put(data, "context", row.context_length);
  put(data, "repeat", row.repeat);
  put(data, "seed", row.seed);
  put(data, "batch", row.batch_size);
  put(data, "page", row.page_size);
  put(data, "prompt_tokens", row.prompt_tokens);
  put(data, "generated_tokens", row.generated_tokens);
  if (!row.ok) data["error"] = one_line(row.error, 400);
  data["timing"] = timing_data(row, points);
  data["steps"] = {{"tokens", series(row.steps.tokens, points)},
                   {"kept", series(row.steps.cache_tokens, points)},
                   {"bytes", series(row.steps.bytes, points)},
                   {"elapsed", series(row.steps.elapsed_s, points)}};
  data["layers"] = {{"bytes", series(row.layer_bytes, row.layer_bytes.size())},
                    {"tokens", series(row.layer_tokens, row.layer_tokens.size())}};
  data["ledger"] = ledger_data(row);
  data["quality"] = quality_data(row);
  if (!std::isnan(row.judge.score))
    data["judge"] = {{"score", row.judge.score},
                     {"by", names.add(row.judge.model + ", rubric " + row.judge.rubric)},
                     {"reason", texts.add(row.judge.reason)}};
  data["counters"] = Json::object();
  for (const auto& [name, value] : row.counters) data["counters"][name] = number(value);
  data["turns"] = Json::array();
  for (const TrialTurn& turn : row.turns)
    data["turns"].push_back({texts.add(turn.prompt), texts.add(turn.text)});
  if (!row.remarks.empty()) data["remarks"] = row.remarks;
  return data;
}

std::string page_data(const std::vector<TrialRow>& rows) {
  const std::size_t points = std::clamp(kNumbersInSeries / (rows.size() * 6), kLeastPoints, kMostPoints);
  std::size_t turns = 1;
  for (const TrialRow& row : rows) turns += 2 * row.turns.size();
  Texts names(8192), texts(std::clamp(kTextBytes / turns, kLeastTextBytes, kMostTextBytes));
  Json data = {{"trials", Json::array()}};
  for (const TrialRow& row : rows) data["trials"].push_back(trial_data(row, points, names, texts));
  data["cut_texts"] = texts.cut();
  data["names"] = names.take();
  data["texts"] = texts.take();
  return script_data(data);
}

std::string counted(std::size_t count, const char* one, const char* several) {
  return fmt::format("{} {}", count, count == 1 ? one : several);
}

std::size_t distinct(const std::vector<TrialRow>& rows, std::string TrialRow::*member) {
  std::set<std::string> names;
  for (const TrialRow& row : rows) names.insert(row.*member);
  return names.size();
}

// A number and its noun.
Finding count_finding(std::size_t count, const char* one, const char* several) {
  return {std::to_string(count), count == 1 ? one : several, ""};
}

std::vector<Finding> run_findings(const TrialRows& trials) {
  const auto& rows = trials.rows;
  const char* noun = rows.size() == 1 ? "trial" : "trials";
  const auto failed = static_cast<std::size_t>(
      std::count_if(rows.begin(), rows.end(), [](const TrialRow& row) { return !row.ok; }));
  std::vector<Finding> findings = {
      {format_count(static_cast<double>(rows.size())),
       failed > 0         ? fmt::format("{}, {} of them failed", noun, failed)
       : rows.size() == 1 ? "trial, ended well"
                          : "trials, all ended well",
       ""},
      count_finding(distinct(rows, &TrialRow::strategy), "strategy", "strategies"),
      count_finding(distinct(rows, &TrialRow::model), "model", "models"),
      count_finding(distinct(rows, &TrialRow::prompt_set), "prompt set", "prompt sets")};
  for (const std::string& note : trials.notes) findings.push_back({"", "", note + "."});
  return findings;
}

void findings_section(HtmlPage& page, const TrialRows& trials, const std::vector<TrialGroup>& groups) {
  page.open(
      "findings", "Findings", "Findings",
      "All trials of the run, whatever the filters show. A recommendation is given where the 95% interval "
      "of the best strategy overlaps with that of no other, and withheld elsewhere; comparison.md has the "
      "tables.");
  page.findings(run_findings(trials));
  std::string model;
  for (const TrialGroup& group : groups) {
    if (group.model == model) continue;
    model = group.model;
    if (several_models(groups)) page.add("<h3>" + escape_html(one_line(model)) + "</h3>\n");
    page.add("<ul class=\"findings recommendations\">\n");
    for (const Recommendation& one : recommendations(strategy_figures(groups, model)))
      page.add(fmt::format("<li{}><b>{}.</b> {}</li>\n", one.strategy.empty() ? " class=\"withheld\"" : "",
                           escape_html(one.question), escape_html(one.sentence)));
    page.add("</ul>\n");
  }
  page.close();
}

struct Section {
  const char* name;  // of the chart
  const char* title;
  const char* short_title;
  const char* caption;
  const char* label;
  const char* png;
};

constexpr Section kSections[] = {
    {"tradeoff", "Quality, bytes and time", "Trade-offs",
     "Each strategy a point. Ringed and joined: the front of the two measures shown, which no other strategy "
     "beats in both. A star: on the front of bytes, time a token and this quality together.",
     "Strategies by what they hold, take and lose", "dashboard_tradeoffs"},
    {"cache", "The cache as tokens come", "Cache size",
     "What the cache holds after each step of the decoder, against the tokens it has seen by then.",
     "Bytes held over the tokens seen, a line for each strategy", "dashboard_cache_size"},
    {"layers", "The cache layer by layer", "Layers", "What each layer holds at the end of a trial.",
     "Bytes or tokens of each layer, a line for each strategy", "dashboard_layers"},
    {"times", "Time", "Time",
     "Boxes span the middle half of the trials, the line in a box is their median, whiskers reach the "
     "extremes.",
     "Prefill, first token, each token and generation in seconds", "dashboard_times"},
    {"tokentimes", "Time of each token", "Token times",
     "Seconds of the generated tokens by their place in the text.",
     "Seconds a token over the generated text, a line for each strategy", "dashboard_token_times"},
    {"memory", "Memory over time", "Memory",
     "Bytes held by the cache over the seconds of a trial. Within the prompt, time is shared among its "
     "chunks by "
     "their tokens.",
     "Bytes held over seconds, a line for each strategy", "dashboard_memory"},
    {"quality", "Quality", "Quality",
     "Means over samples with 95% intervals from a bootstrap over samples; under 8 samples there is no "
     "interval. Perplexity, KL and top-1 are of Baseline's continuation, teacher-forced; ROUGE-L compares "
     "the "
     "generated text with Baseline's.",
     "Perplexity, KL, top-1 agreement and ROUGE-L of each strategy", "dashboard_quality"},
    {"counters", "What was evicted", "Eviction", "Counters that the strategies kept, means over trials.",
     "A counter for each strategy", "dashboard_eviction"},
};

void sections(HtmlPage& page) {
  page.open(
      "strategies", "Strategies", "Strategies",
      "Means over the trials shown. Changes are against Baseline on the same samples, those of bytes for "
      "each token seen, because answers differ in length.");
  page.add("<div id=\"strategy-table\"></div>\n");
  page.close();
  for (const Section& section : kSections) {
    page.open(section.name, section.title, section.short_title, section.caption);
    page.sentence_of(section.name);
    page.chart(section.name, section.label, section.png);
    page.close();
  }
  page.open("samples", "Sample by sample", "Samples",
            "One sample under two strategies: the prompts, and what was generated. Marked words stand in one "
            "text and not in the other.");
  page.add(
      "<h3>Worst samples</h3>\n<p class=\"caption\">The trials shown with the largest mean KL.</p>\n"
      "<div id=\"worst-table\"></div>\n<h3>Side by side</h3>\n");
  page.add("<div class=\"controls\" id=\"sample-controls\"></div>\n<div id=\"sample-view\"></div>\n");
  page.close();
  page.open("trials", "All trials", "Trials", "A row a trial, as in dashboard.csv; failed trials say why.");
  page.add("<p class=\"caption\" id=\"says-trials\"></p>\n<div id=\"trial-table\"></div>\n");
  page.close();
}

constexpr const char* kFilters =
    "<details class=\"filters\" id=\"filters\" open>\n<summary id=\"filter-summary\">Filters</summary>\n"
    "<div id=\"filter-groups\"></div>\n</details>\n<noscript><p class=\"note\">Filters, tables and charts of "
    "this page need scripts; comparison.md and dashboard.csv do not.</p></noscript>\n";

}  // namespace

std::string group_name(const TrialGroup& group, bool several, std::size_t most_bytes) {
  if (!several) return one_line(group.strategy, most_bytes);
  const std::string model = one_line(group.model, most_bytes / 2);
  return one_line(group.strategy, most_bytes - std::min(most_bytes / 2, model.size() + 4)) + " · " + model;
}

bool several_models(const std::vector<TrialGroup>& groups) {
  return std::any_of(groups.begin(), groups.end(),
                     [&](const TrialGroup& group) { return group.model != groups.front().model; });
}

std::string dashboard_html(const TrialRows& trials, const PlotSet& plots,
                           const std::map<std::string, std::string>& png_bytes,
                           const std::string& plotly_js) {
  const Json report = {{"provenance", provenance_json(RunStamp{}, 1, 0)}};
  const PageSource source{report, plots, png_bytes, plotly_js};
  const auto groups = group_trials(trials.rows);
  HtmlPage page(source);
  findings_section(page, trials, groups);
  page.add(kFilters);
  sections(page);
  const std::string experiment = trials.rows.front().experiment;
  return page.finish(
      {.title = "KV-cache strategies: " + one_line(experiment.empty() ? "dashboard" : experiment),
       .eyebrow = "kvanalyze · what cache strategies save, and what they cost",
       .data = page_data(trials.rows),
       .scripts = {"label_layout.js", "ab_view.js", "charts_quality.js", "dashboard_data.js",
                   "dashboard_lines.js", "dashboard_charts.js", "dashboard_details.js", "dashboard_page.js"},
       .heading = experiment.empty() ? "Strategies" : experiment,
       .lead = fmt::format("{}: {}, {}", counted(trials.rows.size(), "trial", "trials"),
                           counted(distinct(trials.rows, &TrialRow::strategy), "strategy", "strategies"),
                           counted(distinct(trials.rows, &TrialRow::model), "model", "models")),
       .source = "results.jsonl",
       .again = "kvanalyze dashboard FOLDER"});
}

}  // namespace kva
