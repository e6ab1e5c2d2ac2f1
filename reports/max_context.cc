#include "reports/max_context.h"

#include <fmt/format.h>

#include <algorithm>
#include <memory>
#include <nlohmann/json.hpp>
#include <span>

#include "reports/evaluated_cache.h"
#include "reports/evaluation.h"
#include "reports/run_text.h"
#include "reports/text_format.h"
#include "runtime/backend/host_memory.h"
#include "runtime/error.h"

namespace kva {
namespace {

using Json = nlohmann::ordered_json;

int64_t checked_memory(int64_t asked, const RunDevice& device) {
  const int64_t available = device.ops ? device.ops->memory().free_bytes : host_memory().available_bytes;
  if (asked > available)
    throw InputError(fmt::format("--memory: expected at most {}, which {} has free, found {}",
                                 format_bytes(static_cast<double>(available)),
                                 device.ops ? device.name() : "this machine",
                                 format_bytes(static_cast<double>(asked))));
  return asked > 0 ? asked : available;
}

std::vector<Recipe> recipes_of(const MaxContextOptions& options) {
  std::vector<Recipe> recipes = {Recipe::parse(kBaselineRecipe)};
  for (const std::string& text : options.recipes) {
    Recipe recipe = Recipe::parse(text);
    if (recipe.text() != kBaselineRecipe) recipes.push_back(std::move(recipe));
  }
  return recipes;
}

class Filler {
 public:
  Filler(const MaxContextOptions& options, int64_t memory_bytes, std::span<const int32_t> text,
         const CacheSetup& setup, Progress& progress)
      : options_(options), memory_bytes_(memory_bytes), text_(text), setup_(setup), progress_(progress) {}

  // Adds steps until one takes more than there is, or the model has no further position.
  Json fill(const Recipe& recipe) {
    EvaluatedCache cache(recipe, setup_);
    cache.begin(options_.batch);
    const int64_t positions = setup_.decoder.config().usable_positions();
    int64_t held = 0;
    int64_t workspace = 0;
    int64_t context = 0;
    bool fits = true;
    while (fits && context < positions) {
      const int64_t count = std::min(options_.chunk, positions - context);
      std::vector<int32_t> tokens;
      for (int64_t i = context; i < context + count; ++i)
        tokens.push_back(text_[static_cast<std::size_t>(i) % text_.size()]);
      cache.step(tokens, {}, {});
      const ByteLedger ledger = cache.cache().ledger();
      const int64_t decoder_bytes = setup_.decoder.workspace_bytes();
      fits = setup_.decoder.weight_bytes() + decoder_bytes + ledger.peak + ledger.workspace - ledger.beside <=
             memory_bytes_;
      progress_.update(done_ += count);
      if (!fits) break;
      context += count;
      held = ledger.held();
      workspace = decoder_bytes + ledger.workspace;
    }
    if (context == 0)
      throw InputError(
          fmt::format("--memory: {} do not hold a context of {} tokens under {}: the weights alone take {}",
                      format_bytes(static_cast<double>(memory_bytes_)), options_.chunk, recipe.text(),
                      format_bytes(static_cast<double>(setup_.decoder.weight_bytes()))));
    progress_.update(done_ += positions - context);
    return row_of(recipe, context, fits, held, workspace);
  }

 private:
  Json row_of(const Recipe& recipe, int64_t context, bool all_positions, int64_t held,
              int64_t workspace) const {
    const int64_t for_caches = memory_bytes_ - setup_.decoder.weight_bytes() - workspace;
    return {{"recipe", recipe.text()},
            {"context", context},
            {"limit", all_positions ? "positions" : "memory"},
            {"cache_bytes", held},
            {"workspace_bytes", workspace},
            {"bytes_per_token",
             static_cast<double>(held) / static_cast<double>(context) / static_cast<double>(options_.batch)},
            {"sequences", std::max(options_.batch, for_caches / (held / options_.batch))}};
  }

  const MaxContextOptions& options_;
  int64_t memory_bytes_;
  std::span<const int32_t> text_;
  const CacheSetup& setup_;
  Progress& progress_;
  int64_t done_ = 0;
};

}  // namespace

Json find_max_context(const MaxContextOptions& options, ThreadPool& pool, Progress& progress) {
  const std::vector<Recipe> recipes = recipes_of(options);
  const auto say = [&progress](const std::string& line) { progress.say(line); };
  RunDevice device = open_device(options.model.device, say);
  const std::string text = text_or_general(options.text_file);
  const FoundModel found = open_model(options.model);
  const std::vector<int32_t> ids = found.tokenizer.encode(text);
  if (ids.empty()) throw InputError(fmt::format("{}: expected a text, found none", options.text_file));
  for (const Recipe& recipe : recipes) (void)recipe.resolve(found.config.layers, found.config.kv_heads);
  const auto needs = [&](const RunDevice& chosen) {
    for (const Recipe& recipe : recipes) check_recipe_runs(chosen, recipe, found.config, options.page_tokens);
  };
  device = settled(std::move(device), options.model.device, needs, say);
  const int64_t memory_bytes = checked_memory(options.memory_bytes, device);
  progress.stage("load", 0, "");
  LoadedModel loaded = load_model(found, options.model, device, pool, progress);

  const int64_t positions = found.config.usable_positions();
  Calibration calibration =
      general_calibration(loaded.decoder, found.tokenizer, options.page_tokens, pool, progress);
  const CacheSetup setup{.decoder = loaded.decoder,
                         .calibration = calibration,
                         .page_tokens = options.page_tokens,
                         .seed = options.seed,
                         .pool = pool,
                         .classes = std::make_shared<const TokenClasses>(found.tokenizer)};
  Json result = {{"model", found.folder.identity.name},
                 {"device", device.name()},
                 {"memory_bytes", memory_bytes},
                 {"weight_bytes", loaded.decoder.weight_bytes()},
                 {"batch", options.batch},
                 {"positions", positions},
                 {"chunk", options.chunk},
                 {"rows", Json::array()}};
  progress.stage("fill", static_cast<int64_t>(recipes.size()) * positions, "tokens");
  Filler filler(options, memory_bytes, ids, setup, progress);
  for (const Recipe& recipe : recipes) result["rows"].push_back(filler.fill(recipe));
  progress.finish();
  result["device_memory"] = device_memory_json(device);
  return result;
}

Table max_context_table(const Json& result) {
  const auto number = [](const Json& value) { return value.get<double>(); };
  Table table{"max-context",
              "Longest context",
              "",
              {{"recipe", false},
               {"tokens"},
               {"limited by", false},
               {"cache"},
               {"bytes/token"},
               {"workspace"},
               {"sequences"}},
              {}};
  for (const Json& row : result.at("rows")) {
    const bool by_model = row.at("limit") == "positions";
    table.rows.push_back(
        {{row.at("recipe").get<std::string>()},
         {format_count(number(row.at("context"))), number(row.at("context"))},
         {by_model ? "positions" : "memory"},
         {format_bytes(number(row.at("cache_bytes"))), number(row.at("cache_bytes"))},
         {format_count(number(row.at("bytes_per_token"))), number(row.at("bytes_per_token"))},
         {format_bytes(number(row.at("workspace_bytes"))), number(row.at("workspace_bytes"))},
         {format_count(number(row.at("sequences"))), number(row.at("sequences"))}});
  }
  return table;
}

}  // namespace kva
