// The trials of a results folder: results.jsonl, one JSON object a line, as `kvanalyze run` writes it.
#pragma once

#include <cstddef>
#include <cstdint>
#include <filesystem>
#include <limits>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

namespace kva {

inline constexpr const char* kTrialFile = "results.jsonl";
// Series are thinned to so many points when they are read.
inline constexpr std::size_t kMaxSeriesPoints = 512;

// What a trial does not say is NaN, in all of these. Bytes and seconds.
inline constexpr double kUnknown = std::numeric_limits<double>::quiet_NaN();

struct TrialTurn {
  std::string prompt;
  std::string text;
  double tokens = kUnknown;
};

struct TrialTiming {
  double prefill_s = kUnknown;
  double first_token_s = kUnknown;
  double generation_s = kUnknown;
  double total_s = kUnknown;
  double codec_s = kUnknown;
  double observe_s = kUnknown;
  // Of one generated token, over the trial's tokens.
  double token_mean_s = kUnknown;
  double token_median_s = kUnknown;
  double token_p95_s = kUnknown;
  // Means over stretches of equal length: the middle of each, counted in generated tokens, and its seconds.
  std::vector<double> token_at;
  std::vector<double> token_s;
};

// One point a decoder step: a chunk of the prompt or a token. Vectors are empty or of one length.
struct TrialSteps {
  std::vector<double> tokens;        // seen
  std::vector<double> cache_tokens;  // kept, mean of the tables
  std::vector<double> bytes;         // held
  // Since the start. A chunk takes its share, by tokens, of the prefill time; steps of one token take the
  // times of the last tokens.
  std::vector<double> elapsed_s;
};

struct TrialLedger {
  double payload = kUnknown, scales = kUnknown, side = kUnknown, tables = kUnknown, slack = kUnknown;
  double workspace = kUnknown, peak = kUnknown;
  double held() const { return payload + scales + side + tables + slack; }
};

struct TrialQuality {
  double perplexity = kUnknown, perplexity_base = kUnknown;
  double kl_mean = kUnknown, kl_max = kUnknown;
  double top1_agreement = kUnknown;
  double rouge_l = kUnknown, edit_distance = kUnknown;
  double scored_tokens = kUnknown;
};

struct TrialJudge {
  std::string model, rubric, reason;
  double score = kUnknown;
};

struct TrialRow {
  int64_t line = 0;  // of the file, from 1
  std::string trial, experiment, mode, model, strategy, recipe, prompt_set, sample, device, started;
  bool ok = false;
  std::string error;
  double context_length = kUnknown, repeat = 0, seed = 0, batch_size = 1, page_size = kUnknown;
  double prompt_tokens = kUnknown, generated_tokens = kUnknown;
  std::vector<TrialTurn> turns;
  TrialTiming timing;
  TrialSteps steps;
  std::vector<double> layer_bytes, layer_tokens;  // empty, or one a layer
  TrialLedger ledger;
  double process_peak = kUnknown;
  TrialQuality quality;
  TrialJudge judge;
  std::vector<std::pair<std::string, double>> counters;
  std::vector<std::string> remarks;

  // The trial that others of its sample are measured against.
  bool is_baseline() const;
  // Mean seconds of a generated token after the first; where single tokens were not timed, of all of them.
  double token_time() const;
};

// The lines of a file. What follows the last line break is no line: a run that is still going, or was ended,
// may not have finished it.
class TrialLines {
 public:
  // Throws InputError where the file is missing, over 1 GiB, or holds a line over 32 MiB.
  explicit TrialLines(const std::filesystem::path& path);
  // Of a text that is not in a file; `source` names it in errors.
  TrialLines(std::string text, const std::string& source);
  TrialLines(const TrialLines&) = delete;  // lines point into the text
  TrialLines& operator=(const TrialLines&) = delete;
  struct Line {
    int64_t number = 0;  // from 1
    std::string_view text;
    std::string source;  // for errors: "results/results.jsonl:12"
  };
  const std::vector<Line>& lines() const { return lines_; }  // those that are not blank
  bool torn() const { return torn_; }

 private:
  std::string text_;
  std::vector<Line> lines_;
  bool torn_ = false;
};

struct TrialRows {
  std::vector<TrialRow> rows;
  std::vector<std::string> notes;  // one line for each thing that a reader should know of the file
};

// One line of the file. Throws InputError that names the line and the field.
TrialRow parse_trial(const TrialLines::Line& line);

// The trials of a file in its order; of a trial that stands there twice the last line counts. `source` names
// it in errors. Throws as load_trials() does.
TrialRows read_trials(const TrialLines& file, const std::string& source);

// Those of a results folder. Throws InputError for a folder without trials, for over 20,000 of them, and for
// the first line that is no trial; Interrupted.
TrialRows load_trials(const std::filesystem::path& results_folder);

}  // namespace kva
