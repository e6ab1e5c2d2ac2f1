// results.jsonl as a stranger may have left it: what a resumed run makes of its rows, and the dashboard.
#include <cstddef>
#include <cstdint>
#include <list>
#include <nlohmann/json.hpp>
#include <string>
#include <vector>

#include "reports/dashboard_forms.h"
#include "reports/experiments/experiment_plots.h"
#include "reports/experiments/experiment_summary.h"
#include "reports/experiments/results_folder.h"
#include "reports/strategy_comparison.h"
#include "runtime/error.h"

namespace {

using Json = nlohmann::ordered_json;

void summarize(const kva::TrialLines& lines) {
  std::list<Json> rows;
  std::vector<const Json*> pointers;
  for (const kva::TrialLines::Line& line : lines.lines())
    pointers.push_back(&rows.emplace_back(kva::parse_row(line.text, line.source)));
  if (pointers.empty()) return;
  (void)kva::experiment_summary_json(pointers, Json::object())
      .dump(-1, ' ', false, Json::error_handler_t::replace);
  const auto strategies = kva::strategies_of(pointers);
  (void)kva::strategy_files(pointers, strategies);
  for (const std::string& strategy : strategies) {
    (void)kva::strategy_json(pointers, strategy);
    (void)kva::strategy_layers_csv(pointers, strategy);
  }
  (void)kva::experiment_figures(pointers);
}

void show(const kva::TrialLines& lines) {
  const kva::TrialRows trials = kva::read_trials(lines, "fuzz");
  const auto groups = kva::group_trials(trials.rows);
  (void)kva::dashboard_figures(groups);
  (void)kva::dashboard_csv(trials.rows);
  (void)kva::comparison_markdown(trials, {});
  (void)kva::dashboard_html(trials, {}, {}, "");
}

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, std::size_t size) {
  if (size > std::size_t{1} << 20) return 0;
  const kva::TrialLines lines(std::string(reinterpret_cast<const char*>(data), size), "fuzz");
  for (const auto read : {summarize, show}) {
    try {
      read(lines);
    } catch (const kva::InputError&) {
    }
  }
  return 0;
}
