#include "reports/trial_rows.h"

#include <fmt/format.h>

#include <algorithm>
#include <cctype>
#include <cmath>
#include <iterator>
#include <map>
#include <nlohmann/json.hpp>
#include <optional>

#include "analyzer/estimate.h"
#include "reports/text_format.h"
#include "runtime/error.h"
#include "runtime/interrupt.h"
#include "runtime/io/file.h"
#include "runtime/io/json.h"

namespace kva {
namespace {

namespace fs = std::filesystem;

constexpr int64_t kMaxFileBytes = int64_t{1} << 30;
constexpr int64_t kMaxLineBytes = int64_t{32} << 20;
constexpr std::size_t kMaxTrials = 20000;
constexpr int64_t kMaxSeries = 1000000;
constexpr int64_t kMaxMembers = 4096;  // of lists that are not series
constexpr std::size_t kMaxNameBytes = 8192;
constexpr double kMaxNumber = 1e300;
constexpr double kMaxWhole = 9007199254740992.0;  // whole numbers that a double holds

std::string name_in(const JsonNode& node, const char* key, bool required) {
  if (!required && !node.has(key)) return "";
  const JsonNode member = node.at(key);
  std::string name = member.as_string();
  if (name.size() > kMaxNameBytes || (required && name.empty()))
    member.fail(fmt::format("a text of 1 to {} bytes", kMaxNameBytes));
  return name;
}

double number_in(const JsonNode& node, const char* key, double max = kMaxWhole) {
  return node.get_number(key, kUnknown, 0.0, max);
}

std::vector<double> series_in(const JsonNode& node, const char* key, int64_t most = kMaxSeries) {
  std::vector<double> values;
  const auto member = node.find(key);
  if (!member || member->is_null()) return values;
  if (!member->is_array()) member->fail("a list of numbers");
  if (member->size() > most) member->fail(fmt::format("at most {} numbers", most));
  values.reserve(static_cast<std::size_t>(member->size()));
  // Elements are read in place: a node for each would cost more than the numbers.
  for (const auto& value : member->raw()) {
    if (!value.is_number() && !value.is_null()) member->fail("a list of numbers");
    const double number = value.is_null() ? kUnknown : value.get<double>();
    if (number < 0 || number > kMaxWhole) member->fail("numbers from 0");
    values.push_back(number);
  }
  return values;
}

// At most `most` indices of `count`, evenly apart, the first and the last among them.
std::vector<std::size_t> thinned_indices(std::size_t count, std::size_t most) {
  std::vector<std::size_t> indices;
  const std::size_t kept = std::min(count, most);
  for (std::size_t i = 0; i < kept; ++i)
    indices.push_back(kept == 1 ? count - 1 : i * (count - 1) / (kept - 1));
  return indices;
}

std::vector<double> taken(const std::vector<double>& values, const std::vector<std::size_t>& indices) {
  std::vector<double> kept;
  if (values.empty()) return kept;
  for (const std::size_t index : indices) kept.push_back(values[index]);
  return kept;
}

void token_times(const std::vector<double>& seconds, TrialTiming& timing) {
  if (seconds.empty()) return;
  const std::size_t stretch = (seconds.size() + kMaxSeriesPoints - 1) / kMaxSeriesPoints;
  for (std::size_t first = 0; first < seconds.size(); first += stretch) {
    const std::size_t count = std::min(stretch, seconds.size() - first);
    timing.token_at.push_back(static_cast<double>(first) + (static_cast<double>(count) + 1) / 2);
    timing.token_s.push_back(mean_of({seconds.data() + first, count}));
  }
  std::vector<double> sorted;
  std::copy_if(seconds.begin(), seconds.end(), std::back_inserter(sorted),
               [](double value) { return !std::isnan(value); });
  if (sorted.empty()) return;
  std::sort(sorted.begin(), sorted.end());
  timing.token_mean_s = mean_of(sorted);
  timing.token_median_s = quantile(sorted, 0.5);
  timing.token_p95_s = quantile(sorted, 0.95);
}

TrialTiming timing_in(const JsonNode& row, std::vector<double>& token_s) {
  TrialTiming timing;
  const auto node = row.find("timing");
  if (!node || node->is_null()) return timing;
  timing.prefill_s = number_in(*node, "prefill_s");
  timing.first_token_s = number_in(*node, "first_token_s");
  timing.generation_s = number_in(*node, "generation_s");
  timing.total_s = number_in(*node, "total_s");
  timing.codec_s = number_in(*node, "codec_s");
  timing.observe_s = number_in(*node, "observe_s");
  token_s = series_in(*node, "token_s");
  token_times(token_s, timing);
  return timing;
}

// When each step ended (TrialSteps::elapsed_s); empty where the times are not known.
std::vector<double> elapsed_times(const std::vector<double>& tokens, double prefill_s,
                                  const std::vector<double>& token_s) {
  std::vector<double> added(tokens.size());
  double in_chunks = 0;
  std::size_t single = 0;
  for (std::size_t i = 0; i < tokens.size(); ++i) {
    added[i] = tokens[i] - (i == 0 ? 0.0 : tokens[i - 1]);
    if (added[i] == 1.0)
      ++single;
    else
      in_chunks += added[i];
  }
  if (!std::isfinite(in_chunks) || std::isnan(prefill_s) || single > token_s.size()) return {};
  std::vector<double> elapsed;
  double now = 0;
  std::size_t next = token_s.size() - single;
  for (const double tokens_of_step : added) {
    now += tokens_of_step == 1.0 ? token_s[next++] : prefill_s * tokens_of_step / in_chunks;
    elapsed.push_back(now);
  }
  if (std::isnan(now)) elapsed.clear();
  return elapsed;
}

TrialSteps steps_in(const JsonNode& row, double prefill_s, const std::vector<double>& token_s) {
  TrialSteps steps;
  const auto node = row.find("steps");
  if (!node || node->is_null()) return steps;
  const std::vector<double> tokens = series_in(*node, "tokens");
  const std::vector<double> cache_tokens = series_in(*node, "cache_tokens");
  const std::vector<double> bytes = series_in(*node, "bytes");
  for (const auto* other : {&cache_tokens, &bytes})
    if (!other->empty() && other->size() != tokens.size())
      node->fail(fmt::format("lists of one length (tokens has {})", tokens.size()));
  if (std::any_of(tokens.begin(), tokens.end(), [](double value) { return std::isnan(value); }) ||
      !std::is_sorted(tokens.begin(), tokens.end()))
    node->at("tokens").fail("numbers that do not fall");
  const auto kept = thinned_indices(tokens.size(), kMaxSeriesPoints);
  steps.tokens = taken(tokens, kept);
  steps.cache_tokens = taken(cache_tokens, kept);
  steps.bytes = taken(bytes, kept);
  steps.elapsed_s = taken(elapsed_times(tokens, prefill_s, token_s), kept);
  return steps;
}

TrialLedger ledger_in(const JsonNode& row) {
  TrialLedger ledger;
  const auto node = row.find("ledger");
  if (!node || node->is_null()) return ledger;
  ledger.payload = number_in(*node, "payload");
  ledger.scales = number_in(*node, "scales");
  ledger.side = number_in(*node, "side");
  ledger.tables = number_in(*node, "tables");
  ledger.slack = number_in(*node, "slack");
  ledger.workspace = number_in(*node, "workspace");
  ledger.peak = number_in(*node, "peak");
  return ledger;
}

TrialQuality quality_in(const JsonNode& row) {
  TrialQuality quality;
  const auto node = row.find("quality");
  if (!node || node->is_null()) return quality;
  quality.perplexity = number_in(*node, "perplexity", kMaxNumber);
  quality.perplexity_base = number_in(*node, "perplexity_base", kMaxNumber);
  // Rounding can leave KL a little below 0.
  quality.kl_mean = node->get_number("kl_mean", kUnknown, -1e-6, kMaxNumber);
  quality.kl_max = node->get_number("kl_max", kUnknown, -1e-6, kMaxNumber);
  quality.top1_agreement = number_in(*node, "top1_agreement", 1.0);
  quality.rouge_l = number_in(*node, "rouge_l", 1.0);
  quality.edit_distance = number_in(*node, "edit_distance");
  quality.scored_tokens = number_in(*node, "scored_tokens");
  return quality;
}

TrialJudge judge_in(const JsonNode& row) {
  TrialJudge judge;
  const auto node = row.find("judge");
  if (!node || node->is_null()) return judge;
  judge.model = name_in(*node, "model", true);
  judge.rubric = name_in(*node, "rubric", true);
  judge.score = node->get_number("score", kUnknown, 1.0, 10.0);
  judge.reason = name_in(*node, "reason", false);
  return judge;
}

// The elements of a list that may be absent.
std::vector<JsonNode> list_in(const JsonNode& row, const char* key, const char* expected) {
  std::vector<JsonNode> elements;
  const auto list = row.find(key);
  if (!list || list->is_null()) return elements;
  if (!list->is_array() || list->size() > kMaxMembers) list->fail(expected);
  for (int64_t i = 0; i < list->size(); ++i) elements.push_back(list->at(i));
  return elements;
}

std::vector<std::pair<std::string, double>> counters_in(const JsonNode& row) {
  std::vector<std::pair<std::string, double>> counters;
  const auto node = row.find("counters");
  if (!node || node->is_null()) return counters;
  const auto names = node->keys();
  if (static_cast<int64_t>(names.size()) > kMaxMembers)
    node->fail(fmt::format("at most {} counters", kMaxMembers));
  for (const std::string& name : names) {
    if (name.size() > kMaxNameBytes) node->fail(fmt::format("names of at most {} bytes", kMaxNameBytes));
    const JsonNode value = node->at(name);
    // A policy may count what is no number; it has no place in a chart.
    if (value.is_number()) counters.emplace_back(name, value.as_number(-kMaxNumber, kMaxNumber));
  }
  return counters;
}

void read_identity(const JsonNode& node, TrialRow& row) {
  row.trial = name_in(node, "trial", true);
  row.experiment = name_in(node, "experiment", false);
  row.mode = name_in(node, "mode", false);
  row.model = name_in(node.at("model"), "name", true);
  row.strategy = name_in(node, "strategy", true);
  row.recipe = name_in(node, "recipe", false);
  row.prompt_set = name_in(node, "prompt_set", true);
  row.sample = name_in(node, "sample", true);
  row.device = name_in(node, "device", false);
  row.started = name_in(node, "started", false);
  row.error = name_in(node, "error", false);
  const JsonNode status = node.at("status");
  row.ok = status.as_string() == "ok";
  if (!row.ok && status.as_string() != "failed") status.fail("\"ok\" or \"failed\"");
  row.context_length = number_in(node, "context_length");
  row.repeat = node.get_number("repeat", 0, 0, kMaxWhole);
  row.seed = node.get_number("seed", 0, 0, 1.9e19);
  row.batch_size = node.get_number("batch_size", 1, 0, kMaxWhole);
  row.page_size = number_in(node, "page_size");
  row.prompt_tokens = number_in(node, "prompt_tokens");
  row.generated_tokens = number_in(node, "generated_tokens");
}

}  // namespace

bool TrialRow::is_baseline() const {
  std::string name;
  for (const char c : strategy) name += static_cast<char>(std::tolower(static_cast<unsigned char>(c)));
  return name == "baseline" || name == "baseline()" || (recipe.empty() ? strategy : recipe) == "dense(f16)";
}

double TrialRow::token_time() const {
  if (!std::isnan(timing.token_mean_s)) return timing.token_mean_s;
  return generated_tokens > 0 ? timing.generation_s / generated_tokens : kUnknown;
}

TrialLines::TrialLines(const fs::path& path)
    : TrialLines(read_text_file(path.string(), kMaxFileBytes), path.string()) {}

TrialLines::TrialLines(std::string contents, const std::string& name) : text_(std::move(contents)) {
  const std::string_view text = text_;
  int64_t number = 0;
  for (std::size_t begin = 0; begin < text.size();) {
    const std::size_t end = text.find('\n', begin);
    if (end == std::string_view::npos) {
      torn_ = true;
      break;
    }
    ++number;
    const std::string_view line = text.substr(begin, end - begin);
    begin = end + 1;
    if (line.find_first_not_of(" \t\r") == std::string_view::npos) continue;
    std::string source = fmt::format("{}:{}", name, number);
    if (static_cast<int64_t>(line.size()) > kMaxLineBytes)
      throw InputError(fmt::format("{}: expected a line of at most {}, found {}", source,
                                   format_bytes(static_cast<double>(kMaxLineBytes)),
                                   format_bytes(static_cast<double>(line.size()))));
    lines_.push_back({number, line, std::move(source)});
  }
}

TrialRow parse_trial(const TrialLines::Line& line) {
  const JsonNode node =
      JsonNode::parse_text(line.text, line.source, {.max_bytes = kMaxLineBytes, .max_depth = 16});
  if (!node.is_object()) node.fail("a trial, one JSON object a line");
  TrialRow row;
  row.line = line.number;
  read_identity(node, row);
  for (const JsonNode& turn : list_in(node, "turns", "a list of turns"))
    row.turns.push_back(
        {turn.get_string("prompt", ""), turn.get_string("text", ""), number_in(turn, "tokens")});
  std::vector<double> token_s;
  row.timing = timing_in(node, token_s);
  row.steps = steps_in(node, row.timing.prefill_s, token_s);
  if (const auto layers = node.find("layers"); layers && !layers->is_null()) {
    row.layer_bytes = series_in(*layers, "bytes", kMaxMembers);
    row.layer_tokens = series_in(*layers, "tokens", kMaxMembers);
  }
  row.ledger = ledger_in(node);
  row.process_peak = number_in(node, "process_peak_bytes");
  row.quality = quality_in(node);
  row.judge = judge_in(node);
  row.counters = counters_in(node);
  for (const JsonNode& remark : list_in(node, "remarks", "a list of texts"))
    row.remarks.push_back(one_line(remark.as_string(), 400));
  return row;
}

TrialRows load_trials(const fs::path& results_folder) {
  const fs::path path = results_folder / kTrialFile;
  if (!fs::is_regular_file(path))
    throw InputError(fmt::format("{}: expected a results folder of `kvanalyze run`, found no {}",
                                 results_folder.string(), kTrialFile));
  return read_trials(TrialLines(path), path.string());
}

TrialRows read_trials(const TrialLines& file, const std::string& source) {
  TrialRows found;
  std::map<std::string, std::size_t> places;
  int64_t repeated = 0;
  for (const TrialLines::Line& line : file.lines()) {
    throw_if_interrupted();
    TrialRow row = parse_trial(line);
    const auto [place, is_new] = places.try_emplace(row.trial, found.rows.size());
    if (!is_new) {
      ++repeated;
      found.rows[place->second] = std::move(row);
      continue;
    }
    if (found.rows.size() == kMaxTrials)
      throw InputError(fmt::format("{}: expected at most {} trials", source, kMaxTrials));
    found.rows.push_back(std::move(row));
  }
  if (found.rows.empty())
    throw InputError(fmt::format("{}: expected at least one finished trial, found none", source));
  if (file.torn())
    found.notes.push_back(fmt::format(
        "{} ends with an unfinished line, which is left out: a run is going on, or was ended", kTrialFile));
  if (repeated > 0)
    found.notes.push_back(fmt::format("{} lines repeat a trial; the last line of each counts", repeated));
  return found;
}

}  // namespace kva
