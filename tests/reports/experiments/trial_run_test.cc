#include "reports/experiments/trial_run.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <unistd.h>

#include <filesystem>
#include <fstream>
#include <map>
#include <nlohmann/json.hpp>
#include <set>

#include "reports/progress.h"
#include "runtime/error.h"
#include "runtime/model/generator.h"

namespace kva {
namespace {

using Json = nlohmann::ordered_json;

// A random model with a tokenizer for some letters.
const std::string& model_folder() {
  namespace fs = std::filesystem;
  struct Folder {
    fs::path path = fs::temp_directory_path() / ("kvanalyze-trial-model-" + std::to_string(::getpid()));
    Folder() {
      fs::remove_all(path);
      fs::copy(KVA_FIXTURES "/models/gpt2", path);
      Json vocab = {{"\u0120", 20}};
      for (char c = 'a'; c <= 'h'; ++c) vocab[std::string(1, c)] = 5 + (c - 'a');
      std::ofstream(path / "vocab.json") << vocab.dump();
      std::ofstream(path / "merges.txt") << "#version: 0.2\n";
    }
    ~Folder() { fs::remove_all(path); }
  };
  static const Folder folder;
  static const std::string path = folder.path.string();
  return path;
}

RunPlan plan_of(const std::string& text, const Shard& shard = {}) {
  return plan_run(read_experiments(ConfigNode::parse_text(text, "c.yaml", ConfigSyntax::kYaml)), shard);
}

std::string config(const std::string& rest) { return "model: " + model_folder() + "\n" + rest; }

struct Session {
  explicit Session(const std::string& text, int threads = 2)
      : plan(plan_of(text)),
        pool(threads),
        decoder(Decoder::load(plan.models.at(0).found.folder.path, {}, pool)),
        runner(plan, 0, decoder, pool) {}

  std::vector<Json> all() {
    std::vector<Json> rows;
    rows.reserve(plan.trials.size());
    const Json* baseline = nullptr;
    for (const Trial& trial : plan.trials) {
      rows.push_back(runner.run(trial, baseline));
      if (trial.strategy == 0) baseline = &rows.back();
    }
    return rows;
  }

  RunPlan plan;
  ThreadPool pool;
  Decoder decoder;
  TrialRunner runner;
};

constexpr const char* kSmall =
    "strategies: [evict, \"quant(bits=4)\"]\nprompts: [\"a b c d e f g h\", \"h g f\"]\nmax_gen_tokens: "
    "6\npage_size: 4\nchunk: 4\n";

TEST(Trials, OneForEachCombinationWithBaselineFirst) {
  const RunPlan plan =
      plan_of(config("strategies: [evict, quant]\nprompts: [a, b, c]\nseeds: [0, 1]\nrepeats: 2\n"
                     "context_lengths: [4, 8]\nmax_gen_tokens: 2\n"));
  EXPECT_EQ(plan.trials.size(), 3u * 3 * 2 * 2 * 2);
  std::set<std::string> ids;
  for (std::size_t i = 0; i < plan.trials.size(); ++i) {
    ids.insert(plan.trials[i].id);
    EXPECT_EQ(plan.trials[i].id.size(), 16u);
    EXPECT_EQ(plan.trials[i].strategy, i % 3) << "a group's trials follow one another";
    EXPECT_EQ(plan.trials[i].group, static_cast<int64_t>(i / 3));
  }
  EXPECT_EQ(ids.size(), plan.trials.size());
}

TEST(Trials, AnIdIsWhatDefinesTheTrial) {
  const auto id = [](const std::string& rest) { return plan_of(config(rest)).trials.at(0).id; };
  const std::string base = "prompts: [a b]\nmax_gen_tokens: 2\n";
  EXPECT_EQ(id(base), id(base));
  EXPECT_EQ(id(base), id(base + "output_dir: elsewhere\n")) << "where rows go changes none";
  for (const char* change : {"seed: 1\n", "temperature: 0.5\n", "page_size: 8\n", "chunk: 8\n",
                             "batch_size: 2\n", "ignore_eos: true\n", "quality: false\n", "weights: f32\n",
                             "context_length: 3\n", "name: other\n", "mode: baseline\n"})
    EXPECT_NE(id(base), id(base + change)) << change;
  EXPECT_NE(id(base), id("prompts: [a c]\nmax_gen_tokens: 2\n"));
  EXPECT_NE(id(base), id("prompts: [a b]\nmax_gen_tokens: 3\n"));
}

TEST(Trials, ShardsAreWholeGroupsAndMakeTheWhole) {
  const std::string text = config("strategies: [evict]\nprompts: [a, b, c, d, e]\nmax_gen_tokens: 2\n");
  std::map<std::string, int> parts;
  for (int64_t i = 1; i <= 3; ++i)
    for (const Trial& trial : plan_of(text, {.index = i, .count = 3}).trials) ++parts[trial.id];
  const RunPlan whole = plan_of(text);
  EXPECT_EQ(parts.size(), whole.trials.size());
  for (const Trial& trial : whole.trials) EXPECT_EQ(parts[trial.id], 1);
}

TEST(TrialRun, BaselineSaysWhatTheGeneratorSays) {
  Session session(config(kSmall));
  const std::vector<Json> rows = session.all();
  for (const std::size_t i : {0u, 3u}) {
    const Json& row = rows[i];
    ASSERT_EQ(row.at("status"), "ok") << row.dump();
    const Trial& trial = session.plan.trials[i];
    KvCache cache(session.decoder.cache_options(4, DType::kF16, KeyBasis::kRotated), session.pool);
    const GenerateResult expected =
        generate(session.decoder, cache, {trial.sample->turns[0].ids},
                 {.max_tokens = 6, .chunk_tokens = 4, .end_tokens = session.decoder.config().eos_ids});
    EXPECT_EQ(row.at("turns")[0].at("ids").get<std::vector<int32_t>>(), expected.generations[0].tokens);
    EXPECT_EQ(row.at("quality").at("kl_mean"), 0) << "on the steps that it was generated in, bit for bit";
    EXPECT_EQ(row.at("quality").at("kl_max"), 0);
    EXPECT_EQ(row.at("quality").at("edit_distance"), 0);
  }
}

TEST(TrialRun, ATrialDoesNotDependOnThoseBefore) {
  Session whole(config(kSmall)), part(config(kSmall));
  const std::vector<Json> rows = whole.all();
  for (std::size_t i = 0; i < rows.size(); ++i) {
    Json alone = part.runner.run(part.plan.trials[i], i % 3 == 0 ? nullptr : &rows[i - i % 3]);
    Json expected = rows[i];
    for (Json* row : {&alone, &expected})
      for (const char* time : {"started", "timing", "process_peak_bytes"}) row->erase(time);
    EXPECT_EQ(alone, expected) << i;
  }
}

TEST(TrialRun, AWrongBaselineIsNoReference) {
  Session session(config(kSmall));
  Json baseline = session.runner.run(session.plan.trials[0], nullptr);
  baseline["turns"][0]["ids"][0] = 1 << 30;
  for (const Json* wrong : {static_cast<const Json*>(&baseline), static_cast<const Json*>(nullptr)}) {
    const Json row = session.runner.run(session.plan.trials[1], wrong);
    EXPECT_EQ(row.at("status"), "ok");
    EXPECT_FALSE(row.contains("quality"));
    EXPECT_NE(row.at("remarks").dump().find("no quality"), std::string::npos);
  }
}

TEST(TrialRun, CopiesOfABatchTakeTheirBytes) {
  Session one(config(kSmall)), three(config(std::string(kSmall) + "batch_size: 3\n"));
  const Json single = one.runner.run(one.plan.trials[0], nullptr);
  const Json batch = three.runner.run(three.plan.trials[0], nullptr);
  EXPECT_EQ(batch.at("turns"), single.at("turns"));
  EXPECT_EQ(batch.at("ledger").at("payload").get<int64_t>(),
            3 * single.at("ledger").at("payload").get<int64_t>());
}

// A codebook has nothing to learn from where a page is longer than the calibration text's sequences.
TEST(TrialRun, WhatGoesWrongIsARow) {
  Session session(config("strategies: [nuq]\nprompts: [a]\nmax_gen_tokens: 2\npage_size: 128\n"));
  const std::vector<Json> rows = session.all();
  EXPECT_EQ(rows[0].at("status"), "ok");
  EXPECT_EQ(rows[1].at("status"), "failed");
  EXPECT_FALSE(rows[1].at("error").get<std::string>().empty());
}

TEST(TrialRun, WhatDoesNotSuitTheModelIsRefusedBeforeAnythingRuns) {
  for (const char* strategy : {"layers(77): quant", "minicache(start=99)"}) {
    try {
      plan_of(config(std::string("strategies: [\"") + strategy + "\"]\nprompts: [a]\n"));
      FAIL() << "no error for " << strategy;
    } catch (const InputError& error) {
      EXPECT_THAT(error.what(), testing::HasSubstr("c.yaml:2: strategies[0]"));
    }
  }
}

}  // namespace
}  // namespace kva
