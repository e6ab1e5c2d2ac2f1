#include "reports/default_ab.h"

#include <fmt/format.h>

#include <algorithm>
#include <map>
#include <nlohmann/json.hpp>

#include "reports/ab_run.h"
#include "runtime/error.h"

namespace kva {
namespace {

constexpr int64_t kShortestWindow = 128;
constexpr int64_t kChunkTokens = 64;
constexpr int kPageTokens = 64;

}  // namespace

std::vector<std::string> default_recipes() {
  return {"quant(k=8,v=8)",
          "quant(k=4,v=4,axes=kivi,group=page,outliers=0.01)",
          "dedup(cos=0.98)",
          "merge(keep=0.5)",
          "minicache(start=0.5,t=0.6)",
          "keys(plain); lowrank(rank=0.5)"};
}

std::string joined_prompts(const PromptSource& source) {
  std::vector<std::string> sets;
  std::map<std::string, std::vector<std::string>> texts;
  std::size_t most = 0;
  for (Prompt& prompt : load_prompts(source)) {
    if (!texts.contains(prompt.set)) sets.push_back(prompt.set);
    auto& of_set = texts[prompt.set];
    of_set.push_back(std::move(prompt.text));
    most = std::max(most, of_set.size());
  }
  std::string joined;
  for (std::size_t i = 0; i < most; ++i)
    for (const std::string& set : sets)
      if (i < texts[set].size()) joined += texts[set][i] + "\n\n";
  return joined;
}

void check_default_ab(const CaptureOptions& capture, const DefaultAb& options) {
  if (capture.device.name != "cuda") return;
  const RunDevice device = open_device(capture.device, [](const std::string&) {});
  const FoundModel found = open_model(capture);
  try {
    for (const std::string& recipe : options.recipes)
      check_recipe_runs(device, Recipe::parse(recipe), found.config, kPageTokens);
  } catch (const InputError& error) {
    throw InputError(fmt::format("{}; --no-ab judges no recipes", error.what()));
  }
}

void add_default_ab(const CaptureOptions& capture, const DefaultAb& options, const RunStamp& stamp,
                    ThreadPool& pool, Progress& progress, nlohmann::ordered_json& report) {
  AbOptions run;
  run.model = capture;
  run.model.weights = "f32";
  run.text = joined_prompts(capture.prompts);
  run.text_file = "the run's prompts";
  run.recipes = options.recipes;
  run.page_tokens = kPageTokens;
  run.seed = options.seed;
  run.timing = false;
  const FoundModel found = open_model(run.model);
  const auto tokens = static_cast<int64_t>(found.tokenizer.encode(*run.text).size());
  run.windows.context = std::min({options.context, tokens, int64_t{found.config.usable_positions()}});
  run.windows.tokens = options.windows * (run.windows.context - run.windows.context / 2);
  run.windows.chunk = kChunkTokens;
  if (run.windows.context < kShortestWindow) {
    progress.say(
        fmt::format("no A/B of recipes: the prompts have {} tokens, a window takes {}; kvanalyze ab "
                    "judges recipes on a text of your own",
                    tokens, kShortestWindow));
    return;
  }
  nlohmann::ordered_json judged = run_ab(run, stamp, pool, progress);
  report["ab"] = std::move(judged["ab"]);
  report["definitions"].update(judged["definitions"]);
  nlohmann::ordered_json& provenance = report["provenance"];
  provenance["duration_s"] = judged["provenance"]["duration_s"];
  const std::string device = judged["provenance"]["device"];
  if (provenance["device"] != device)
    provenance["device"] = fmt::format("{}; recipes: {}", provenance["device"].get<std::string>(), device);
}

}  // namespace kva
