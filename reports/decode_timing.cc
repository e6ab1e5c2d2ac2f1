#include "reports/decode_timing.h"

#include <sys/resource.h>

#include <algorithm>
#include <cmath>
#include <memory>

#include "kernels/check.h"
#include "runtime/clock.h"
#include "runtime/interrupt.h"

namespace kva {
namespace {

// By nearest rank; of at least one value.
double percentile(std::vector<double> values, double share) {
  std::sort(values.begin(), values.end());
  const auto rank = static_cast<std::size_t>(std::ceil(share * static_cast<double>(values.size())));
  return values[std::max<std::size_t>(rank, 1) - 1];
}

double median(std::vector<double> values) {
  std::sort(values.begin(), values.end());
  const std::size_t middle = values.size() / 2;
  return values.size() % 2 == 1 ? values[middle] : (values[middle - 1] + values[middle]) / 2;
}

struct Run {
  double prefill_s = 0;
  double first_token_s = 0;
  std::vector<double> step_s;
};

Run run_once(EvaluatedCache& cache, int64_t vocab, std::span<const int32_t> prompt, int64_t decode_tokens,
             int64_t chunk_tokens) {
  std::vector<float> logits(static_cast<std::size_t>(vocab));
  const MatView<float> row(logits.data(), 1, vocab);
  const auto greedy = [&] {
    return static_cast<int32_t>(std::max_element(logits.begin(), logits.end()) - logits.begin());
  };
  Run run;
  cache.begin();
  const auto start = Clock::now();
  const auto tokens = static_cast<int64_t>(prompt.size());
  cache.begin_prompt(prompt);
  for (int64_t at = 0; at < tokens; at += chunk_tokens) {
    const int64_t count = std::min(chunk_tokens, tokens - at);
    const int64_t last = count - 1;
    const bool ends = at + count == tokens;
    cache.step(prompt.subspan(static_cast<std::size_t>(at), static_cast<std::size_t>(count)),
               {&last, ends ? std::size_t{1} : 0}, ends ? row : MatView<float>(nullptr, 0, row.cols));
  }
  int32_t next = greedy();
  run.first_token_s = seconds_since(start);
  cache.end_prompt();
  run.prefill_s = seconds_since(start);
  const int64_t first = 0;
  for (int64_t i = 0; i < decode_tokens; ++i) {
    const auto step_start = Clock::now();
    cache.step({&next, 1}, {&first, 1}, row);
    next = greedy();
    run.step_s.push_back(seconds_since(step_start));
  }
  cache.end();
  return run;
}

DecodeTiming summary(const std::vector<Run>& runs, int64_t prompt_tokens, const TimingOptions& options) {
  std::vector<double> prefill, decode, first, steps;
  for (const Run& run : runs) {
    double total = 0;
    for (const double step : run.step_s) total += step;
    prefill.push_back(static_cast<double>(prompt_tokens) / run.prefill_s);
    decode.push_back(static_cast<double>(run.step_s.size()) / total);
    first.push_back(run.first_token_s);
    steps.insert(steps.end(), run.step_s.begin(), run.step_s.end());
  }
  DecodeTiming timing;
  timing.context = options.context;
  timing.decode_tokens = options.context - prompt_tokens;
  timing.chunk_tokens = options.chunk_tokens;
  timing.runs = static_cast<int>(runs.size());
  timing.prefill_tokens_per_s = median(prefill);
  timing.decode_tokens_per_s = median(decode);
  timing.first_token_ms = median(first) * 1e3;
  timing.step_median_ms = median(steps) * 1e3;
  timing.step_p99_ms = percentile(steps, 0.99) * 1e3;
  return timing;
}

}  // namespace

std::vector<DecodeTiming> time_decoding(std::span<const int32_t> text, const std::vector<Recipe>& recipes,
                                        const TimingOptions& options, const CacheSetup& setup,
                                        Progress& progress) {
  KVA_CHECK(options.context >= 2 && static_cast<int64_t>(text.size()) >= options.context && options.runs > 0,
            "timing needs a context of text and a run");
  const int64_t decode_tokens = std::clamp<int64_t>(options.decode_tokens, 1, options.context / 2);
  const auto prompt = text.first(static_cast<std::size_t>(options.context - decode_tokens));
  std::vector<std::unique_ptr<EvaluatedCache>> caches;
  caches.reserve(recipes.size());
  for (const Recipe& recipe : recipes) caches.push_back(std::make_unique<EvaluatedCache>(recipe, setup));
  std::vector<std::vector<Run>> runs(recipes.size());
  progress.stage("time", (options.runs + 1) * static_cast<int64_t>(recipes.size()), "runs");
  int64_t done = 0;
  for (int round = 0; round <= options.runs; ++round) {
    for (std::size_t i = 0; i < recipes.size(); ++i) {
      throw_if_interrupted();
      Run run =
          run_once(*caches[i], setup.decoder.config().vocab, prompt, decode_tokens, options.chunk_tokens);
      if (round > 0) runs[i].push_back(std::move(run));
      progress.update(++done);
    }
  }
  progress.finish();
  std::vector<DecodeTiming> timings;
  timings.reserve(runs.size());
  for (const std::vector<Run>& of_recipe : runs)
    timings.push_back(summary(of_recipe, static_cast<int64_t>(prompt.size()), options));
  return timings;
}

int64_t peak_process_bytes() {
  rusage usage = {};
  return getrusage(RUSAGE_SELF, &usage) == 0 ? int64_t{usage.ru_maxrss} * 1024 : 0;
}

}  // namespace kva
