// dashboard.csv.
#include <fmt/format.h>

#include <cmath>
#include <functional>
#include <utility>

#include "reports/dashboard_forms.h"

namespace kva {
namespace {

std::string text(const std::string& value) {
  std::string quoted = "\"";
  if (!value.empty() && std::string_view("=+-@\t\r").find(value.front()) != std::string_view::npos)
    quoted += '\'';
  for (const char c : value) quoted += c == '"' ? std::string("\"\"") : std::string(1, c);
  return quoted + "\"";
}

std::string number(double value) { return std::isfinite(value) ? fmt::format("{:.10g}", value) : ""; }

using Column = std::pair<const char*, std::function<std::string(const TrialRow&)>>;

const std::vector<Column>& columns() {
  using Row = const TrialRow&;
  static const std::vector<Column> kColumns = {
      {"line", [](Row r) { return number(static_cast<double>(r.line)); }},
      {"trial", [](Row r) { return text(r.trial); }},
      {"status", [](Row r) { return std::string(r.ok ? "ok" : "failed"); }},
      {"error", [](Row r) { return text(r.error); }},
      {"experiment", [](Row r) { return text(r.experiment); }},
      {"mode", [](Row r) { return text(r.mode); }},
      {"model", [](Row r) { return text(r.model); }},
      {"strategy", [](Row r) { return text(r.strategy); }},
      {"recipe", [](Row r) { return text(r.recipe); }},
      {"prompt_set", [](Row r) { return text(r.prompt_set); }},
      {"sample", [](Row r) { return text(r.sample); }},
      {"context_length", [](Row r) { return number(r.context_length); }},
      {"repeat", [](Row r) { return number(r.repeat); }},
      {"seed", [](Row r) { return number(r.seed); }},
      {"device", [](Row r) { return text(r.device); }},
      {"batch_size", [](Row r) { return number(r.batch_size); }},
      {"page_size", [](Row r) { return number(r.page_size); }},
      {"started", [](Row r) { return text(r.started); }},
      {"prompt_tokens", [](Row r) { return number(r.prompt_tokens); }},
      {"generated_tokens", [](Row r) { return number(r.generated_tokens); }},
      {"held_bytes", [](Row r) { return number(r.ledger.held()); }},
      {"payload_bytes", [](Row r) { return number(r.ledger.payload); }},
      {"scales_bytes", [](Row r) { return number(r.ledger.scales); }},
      {"side_bytes", [](Row r) { return number(r.ledger.side); }},
      {"tables_bytes", [](Row r) { return number(r.ledger.tables); }},
      {"slack_bytes", [](Row r) { return number(r.ledger.slack); }},
      {"workspace_bytes", [](Row r) { return number(r.ledger.workspace); }},
      {"peak_bytes", [](Row r) { return number(r.ledger.peak); }},
      {"process_peak_bytes", [](Row r) { return number(r.process_peak); }},
      {"prefill_s", [](Row r) { return number(r.timing.prefill_s); }},
      {"first_token_s", [](Row r) { return number(r.timing.first_token_s); }},
      {"generation_s", [](Row r) { return number(r.timing.generation_s); }},
      {"total_s", [](Row r) { return number(r.timing.total_s); }},
      {"codec_s", [](Row r) { return number(r.timing.codec_s); }},
      {"observe_s", [](Row r) { return number(r.timing.observe_s); }},
      {"token_mean_s", [](Row r) { return number(r.token_time()); }},
      {"token_median_s", [](Row r) { return number(r.timing.token_median_s); }},
      {"token_p95_s", [](Row r) { return number(r.timing.token_p95_s); }},
      {"perplexity", [](Row r) { return number(r.quality.perplexity); }},
      {"perplexity_base", [](Row r) { return number(r.quality.perplexity_base); }},
      {"kl_mean", [](Row r) { return number(r.quality.kl_mean); }},
      {"kl_max", [](Row r) { return number(r.quality.kl_max); }},
      {"top1_agreement", [](Row r) { return number(r.quality.top1_agreement); }},
      {"rouge_l", [](Row r) { return number(r.quality.rouge_l); }},
      {"edit_distance", [](Row r) { return number(r.quality.edit_distance); }},
      {"scored_tokens", [](Row r) { return number(r.quality.scored_tokens); }},
      {"judge_model", [](Row r) { return text(r.judge.model); }},
      {"judge_rubric", [](Row r) { return text(r.judge.rubric); }},
      {"judge_score", [](Row r) { return number(r.judge.score); }},
  };
  return kColumns;
}

}  // namespace

std::string dashboard_csv(const std::vector<TrialRow>& rows) {
  std::string csv;
  for (const auto& [name, value] : columns()) csv += (csv.empty() ? "" : ",") + std::string(name);
  csv += "\r\n";
  for (const TrialRow& row : rows) {
    std::string line;
    bool first = true;
    for (const auto& [name, value] : columns()) {
      line += (first ? "" : ",") + value(row);
      first = false;
    }
    csv += line + "\r\n";
  }
  return csv;
}

}  // namespace kva
