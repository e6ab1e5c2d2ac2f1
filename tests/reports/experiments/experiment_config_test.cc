#include "reports/experiments/experiment_config.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <filesystem>
#include <fstream>
#include <set>
#include <sstream>

#include "runtime/error.h"

namespace kva {
namespace {

using testing::ElementsAre;
using testing::HasSubstr;

ExperimentFile read(const std::string& text, const ExperimentOverrides& overrides = {},
                    ConfigSyntax syntax = ConfigSyntax::kYaml) {
  return read_experiments(ConfigNode::parse_text(text, "c.yaml", syntax), overrides);
}

std::string error_of(const std::string& text, const ExperimentOverrides& overrides = {}) {
  try {
    read(text, overrides);
  } catch (const InputError& error) {
    EXPECT_EQ(std::string(error.what()).find('\n'), std::string::npos) << error.what();
    return error.what();
  }
  return "no error";
}

std::vector<std::string> recipes(const Experiment& experiment) {
  std::vector<std::string> texts;
  for (const Strategy& strategy : experiment.strategies) texts.push_back(strategy.recipe.text());
  return texts;
}

TEST(ExperimentConfig, OwnShapeWithEverything) {
  const ExperimentFile file = read(R"x(output_dir: out
models: [gpt2, opt-125m]
limit: 3
experiments:
  - name: first
    strategies: [evict, "quant(bits=4,window=16)", Baseline]
    prompt_sets: [general, code]
    seeds: [0, 1]
    max_gen_tokens: 7
    temperature: 0.5
    context_lengths: [64, 128]
    batch_size: 2
    page_size: 16
  - name: second
    model: smollm2-135m
    limit: 5
    passkey: {depths: [0, 1], trials: 2}
)x");
  EXPECT_EQ(file.output_dir, "out");
  ASSERT_EQ(file.experiments.size(), 2u);
  const Experiment& first = file.experiments[0];
  ASSERT_EQ(first.models.size(), 2u);
  EXPECT_EQ(first.models[1].name, "opt-125m");
  EXPECT_EQ(first.models[1].place.text, "c.yaml:2: models[1]");
  EXPECT_THAT(recipes(first), ElementsAre("dense(f16)", "evict", "quant(bits=4,window=16)"));
  EXPECT_EQ(first.strategies[0].written, "Baseline") << "first, wherever it is written";
  EXPECT_EQ(first.limit, 3) << "from the top";
  EXPECT_EQ(first.seeds, (std::vector<uint64_t>{0, 1}));
  EXPECT_EQ(first.context_lengths, (std::vector<int64_t>{64, 128}));
  EXPECT_EQ(first.prompts.size(), 2u);
  EXPECT_EQ(first.sampler.temperature, 0.5);
  EXPECT_EQ(first.batch_size, 2);
  EXPECT_EQ(first.page_tokens, 16);
  const Experiment& second = file.experiments[1];
  EXPECT_EQ(second.models.at(0).name, "smollm2-135m");
  EXPECT_EQ(second.limit, 5);
  EXPECT_TRUE(second.passkey.asked);
  EXPECT_TRUE(second.prompts.empty());
  EXPECT_THAT(recipes(second), ElementsAre("dense(f16)"));
}

TEST(ExperimentConfig, ThresholdOfTheFirstSystem) {
  const ExperimentFile file = read(R"x({"model_name": "meta-llama/Llama-2-7b-chat-hf",
    "cache_dir": "/path/to/cache", "output_dir": "benchmark_results", "max_gen_tokens": 100, "kv_threshold": 20,
    "strategies": ["Baseline", "evict(keep=0.7)", "evict(keep=0.5)@prefill", "merge@seal",
                   "evict(keep=0.25) | quant(bits=4)", "layers(0): dense(bf16) ; rest: quant"]})x",
                                   {}, ConfigSyntax::kJson);
  EXPECT_EQ(file.output_dir, "benchmark_results");
  const Experiment& only = file.experiments.at(0);
  EXPECT_EQ(only.cache_dir, "/path/to/cache");
  EXPECT_EQ(only.max_gen_tokens, 100);
  EXPECT_THAT(recipes(only), ElementsAre("dense(f16)", "evict(keep=0.7)@tokens>20", "evict(keep=0.5)@prefill",
                                         "merge", "evict(keep=0.25)@tokens>20 | quant(bits=4)@tokens>20",
                                         "layers(0): dense(bf16) ; rest: quant@tokens>20"));
  EXPECT_EQ(only.strategies[1].written, "evict(keep=0.7)");
}

TEST(ExperimentConfig, ListOfTheThirdSystem) {
  const ExperimentFile file = read(R"x([{"name": "custom_experiment", "model": "meta-llama/Llama-2-7b-hf",
    "prompts": ["Your custom prompt 1", "Your custom prompt 2"], "max_tokens": 256, "temperature": 0.7,
    "max_model_len": 2048}])x",
                                   {}, ConfigSyntax::kJson);
  EXPECT_EQ(file.output_dir, "results");
  const Experiment& only = file.experiments.at(0);
  EXPECT_EQ(only.name, "custom_experiment");
  EXPECT_THAT(only.prompts.at(0).source.texts, ElementsAre("Your custom prompt 1", "Your custom prompt 2"));
  EXPECT_EQ(only.max_gen_tokens, 256);
  EXPECT_EQ(only.max_context, 2048);
  EXPECT_EQ(only.sampler.temperature, 0.7);
}

TEST(ExperimentConfig, ModesOfTheFourthSystem) {
  const std::string baseline = R"x(experiments:
  - mode: baseline
    model_name: "microsoft/DialoGPT-small"
    context_lengths: [100, 500, 1000]
    num_runs: 3
    max_new_tokens: 50
)x";
  const Experiment only = read(baseline).experiments.at(0);
  EXPECT_EQ(only.mode, "baseline");
  EXPECT_EQ(only.repeats, 3);
  EXPECT_EQ(only.max_gen_tokens, 50);
  EXPECT_EQ(only.context_lengths.size(), 3u);
  EXPECT_THAT(recipes(only), ElementsAre("dense(f16)"));
  EXPECT_EQ(
      error_of(baseline + "  - mode: reactive\n    model_name: x\n    max_gpu_pages: 8\n"),
      "c.yaml:7: experiments[1].mode: expected generate or baseline, found \"reactive\"; this mode does "
      "not exist yet");
}

TEST(ExperimentConfig, StrategiesAsFields) {
  const ExperimentFile file =
      read("model: m\nstrategies:\n  - {name: evict, keep: 0.25, sinks: 2}\n  - name: quant\n");
  EXPECT_THAT(recipes(file.experiments.at(0)),
              ElementsAre("dense(f16)", "evict(keep=0.25,sinks=2)", "quant"));
}

TEST(ExperimentConfig, MistakesNameLineAndField) {
  EXPECT_EQ(error_of("model: m\nmax_gen_token: 5\n"),
            "c.yaml:2: expected a known field, found \"max_gen_token\"; did you mean max_gen_tokens?");
  EXPECT_EQ(error_of("experiments:\n  - model: m\n    limit: many\n"),
            "c.yaml:3: experiments[0].limit: expected a whole number from 0 to 1000000, found \"many\"");
  EXPECT_EQ(error_of("model: m\nmax_tokens: 5\nmax_new_tokens: 6\n"),
            "c.yaml:3: max_new_tokens: expected max_gen_tokens once, found it as max_tokens too");
  EXPECT_THAT(error_of("model: m\nstrategies:\n  - Baseline\n  - evictt(keep=0.7)\n"),
              testing::AllOf(HasSubstr("c.yaml:4: strategies[1]: recipe, column 1"), HasSubstr("evict")));
  EXPECT_THAT(error_of("model: m\nstrategies: [evict(keep=0.7,sinks=1)]\n"), HasSubstr("in quotes"));
  EXPECT_THAT(error_of("model: m\nstrategies:\n  - layers(0): dense\n"),
              HasSubstr("c.yaml:3: strategies[0]: expected a recipe"));
  EXPECT_THAT(error_of("model: m\nstrategies: [evict, \"EVICT( )\"]\n"),
              HasSubstr("c.yaml:2: strategies[1]"));
  EXPECT_THAT(error_of("limit: 1\n"), HasSubstr("c.yaml:1: models: expected the name of a model"));
  EXPECT_THAT(error_of("model: m\ndevice: tpu\n"),
              HasSubstr("device: expected auto or cpu or cuda, found \"tpu\""));
  EXPECT_THAT(error_of("model: m\nprompt_sets: [genral]\n"), HasSubstr("did you mean general?"));
  EXPECT_THAT(error_of("model: m\ndataset: {local_path: /nowhere.json, prompt_field: turns}\n"),
              HasSubstr("c.yaml:2: dataset.local_path: expected a file"));
  EXPECT_THAT(error_of("model: m\ndataset: {prompt_field: turns}\n"), HasSubstr("expected local_path"));
  EXPECT_THAT(error_of("model: m\ndataset: {local_paht: x}\n"), HasSubstr("did you mean local_path?"));
  EXPECT_THAT(error_of("model: m\nseeds: [1, 1]\n"), HasSubstr("seeds: expected each value once"));
  EXPECT_THAT(error_of("model: m\nmode: baseline\nstrategies: [evict]\n"), HasSubstr("no strategies"));
  EXPECT_THAT(error_of("model: m\nexperiments:\n  - output_dir: x\n"), HasSubstr("beside the list"));
  EXPECT_THAT(error_of("model: m\nexperiments:\n  - name: a\n  - name: a\n"), HasSubstr("a twice"));
  EXPECT_THAT(error_of("experiments: []\n"), HasSubstr("1 to 4096 experiments"));
  EXPECT_THAT(error_of(""), HasSubstr("c.yaml:"));
  EXPECT_THAT(error_of("just text\n"), HasSubstr("expected fields of an experiment"));
}

TEST(ExperimentConfig, TheCommandLineHasTheLastWord) {
  const std::string text =
      "experiments:\n  - {name: a, model: m, strategies: [evict, merge]}\n  - {name: b, model: m, "
      "strategies: "
      "[quant]}\n";
  ExperimentFile file = read(text, {.model = "gpt2", .output_dir = "o", .max_gen_tokens = 9, .limit = 2});
  EXPECT_EQ(file.experiments.at(1).models.at(0).name, "gpt2");
  EXPECT_EQ(file.output_dir, "o");
  EXPECT_EQ(file.experiments.at(0).max_gen_tokens, 9);
  EXPECT_EQ(file.experiments.at(0).limit, 2);
  file = read(text, {.only = {"Merge"}});
  ASSERT_EQ(file.experiments.size(), 1u);
  EXPECT_THAT(recipes(file.experiments[0]), ElementsAre("dense(f16)", "merge"));
  file = read(text, {.only = {"b"}});
  ASSERT_EQ(file.experiments.size(), 1u);
  EXPECT_THAT(recipes(file.experiments[0]), ElementsAre("dense(f16)", "quant"));
  EXPECT_THAT(error_of(text, {.only = {"nothing"}}), HasSubstr("--only"));
}

TEST(ExperimentConfig, NamesOfStrategies) {
  EXPECT_EQ(plain_name("attention_sink"), "attentionsink");
  EXPECT_EQ(plain_name("AttentionSink(sink=4,window=1020)@tokens>20"), "attentionsink");
}

// docs/experiments.md lists every field and alias, and no other.
TEST(ExperimentConfig, TheDocumentedTableIsTheOneThatIsRead) {
  std::ifstream page(KVA_SOURCE_DIR "/docs/experiments.md");
  std::set<std::string> documented, known;
  bool in_table = false;
  for (std::string line; std::getline(page, line);) {
    if (line.rfind("| field | also |", 0) == 0) in_table = true;
    if (line.empty()) in_table = false;
    if (!in_table || line.rfind("| `", 0) != 0) continue;
    const std::size_t second = line.find('|', 1), third = line.find('|', second + 1);
    std::string name = line.substr(3, line.find('`', 3) - 3);
    documented.insert(name);
    for (std::size_t at = line.find('`', second); at < third; at = line.find('`', at + 1)) {
      const std::size_t end = line.find('`', at + 1);
      documented.insert(name + "=" + line.substr(at + 1, end - at - 1));
      at = end;
    }
  }
  for (const ExperimentField& field : experiment_fields()) {
    known.insert(std::string(field.name));
    for (const std::string_view alias : field.aliases)
      known.insert(std::string(field.name) + "=" + std::string(alias));
  }
  EXPECT_EQ(documented, known);
}

// Configurations as other programs write them.
ExperimentFile fixture(const std::string& name, const ExperimentOverrides& overrides = {}) {
  return read_experiments(ConfigNode::parse_file(KVA_FIXTURES "/experiments/" + name), overrides);
}

TEST(ExperimentConfig, ConfigurationsOfOtherPrograms) {
  const ExperimentFile strategies = fixture("strategies.json");
  EXPECT_EQ(strategies.output_dir, "benchmark_results");
  const Experiment& seven = strategies.experiments.at(0);
  EXPECT_EQ(seven.strategies.size(), 7u);
  EXPECT_EQ(seven.cache_dir, "hub-cache");
  EXPECT_EQ(seven.page_tokens, 16) << "pages that a cache of 20 tokens fills";
  for (const Strategy& strategy : seven.strategies)
    EXPECT_EQ(strategy.recipe.text().find("@tokens>20") != std::string::npos, !strategy.is_baseline())
        << strategy.written;
  EXPECT_EQ(load_prompts(seven.prompts.at(0).source).at(1).turns.size(), 2u);

  const Experiment array = fixture("array.json").experiments.at(0);
  EXPECT_EQ(array.name, "two_prompts");
  EXPECT_EQ(array.max_gen_tokens, 256);
  EXPECT_EQ(array.max_context, 2048);
  EXPECT_EQ(array.sampler.temperature, 0.7);
  EXPECT_EQ(array.prompts.at(0).source.texts.size(), 2u);

  const ExperimentFile framework = fixture("framework.yaml");
  EXPECT_TRUE(framework.save);
  EXPECT_EQ(framework.output_dir, "./results");
  const Experiment& three = framework.experiments.at(0);
  EXPECT_EQ(three.max_gen_tokens, 512);
  EXPECT_THAT(recipes(three), ElementsAre("dense(f16)", "attentionsink(sink=4,window=128)", HasSubstr("18")));
  EXPECT_EQ(three.strategies[1].written, "attention_sink(window_size=128,sink_size=4)");
}

TEST(ExperimentConfig, ModesThatDoNotExistAreRefusedUnlessOthersAreAskedFor) {
  try {
    fixture("modes.yaml");
    ADD_FAILURE() << "reactive does not exist";
  } catch (const InputError& error) {
    EXPECT_THAT(error.what(), HasSubstr("modes.yaml:8: experiments[1].mode"));
    EXPECT_THAT(error.what(), HasSubstr("\"reactive\"; this mode does not exist yet"));
  }
  const ExperimentFile file = fixture("modes.yaml", {.only = {"baseline"}});
  ASSERT_EQ(file.experiments.size(), 1u);
  EXPECT_EQ(file.experiments[0].mode, "baseline");
  EXPECT_EQ(file.experiments[0].repeats, 3);
  EXPECT_THROW(fixture("modes.yaml", {.only = {"predictive"}}), InputError);
}

TEST(ExperimentConfig, WhatHoldsForTheRunStandsBesideTheList) {
  EXPECT_FALSE(read("model: m\nsave_results: false\n").save);
  EXPECT_FALSE(read("save_results: false\nexperiments:\n  - model: m\n").save);
  EXPECT_THAT(error_of("experiments:\n  - model: m\n    save_results: true\n"),
              HasSubstr("c.yaml:3: experiments[0].save_results: expected beside the list of experiments"));
  EXPECT_THAT(error_of("- model: m\n  output_dir: out\n"), HasSubstr("--output-dir"));
  EXPECT_THAT(error_of("model: m\ndevice: tpu\n"), HasSubstr("c.yaml:2: device: expected auto"));
}

TEST(ExperimentConfig, DatasetsOfMtBench) {
  const std::string path = KVA_SHARED_DATA "/prompts/mt_bench/question.jsonl";
  if (!std::filesystem::exists(path)) GTEST_SKIP() << path << " is not here";
  const ExperimentFile file = read("model: m\ndataset:\n  local_path: " + path + "\n  prompt_field: turns\n");
  PromptSource source = file.experiments.at(0).prompts.at(0).source;
  source.limit = 2;
  const std::vector<Prompt> prompts = load_prompts(source);
  ASSERT_EQ(prompts.size(), 2u);
  ASSERT_EQ(prompts[0].turns.size(), 2u);
  EXPECT_EQ(prompts[0].turns[1], "Rewrite your previous response. Start every sentence with the letter A.");
  EXPECT_EQ(prompts[0].text, prompts[0].turns[0] + "\n\n" + prompts[0].turns[1]);
}

}  // namespace
}  // namespace kva
