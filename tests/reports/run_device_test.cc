#include "reports/run_device.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <nlohmann/json.hpp>

#include "kernels/device.h"
#include "reports/redundancy_report.h"
#include "reports/tables.h"
#include "tests/analyzer/redundancy/page_set_builder.h"
#include "tests/error_of.h"
#include "tests/kernels/lane_device.h"
#include "tests/reports/evaluation_session.h"

namespace kva {
namespace {

using testing::AllOf;
using testing::ElementsAre;
using testing::HasSubstr;
using testing::IsEmpty;

const DeviceOpener kLanes = [](std::string*) -> std::shared_ptr<DeviceOps> { return make_lane_device(); };
const DeviceOpener kNone = [](std::string* why_not) {
  *why_not = "no driver";
  return nullptr;
};
void needs_more(const RunDevice&) { throw InputError("lowrank(rank=4): no kernels yet; use --device cpu"); }
void needs_nothing(const RunDevice&) {}

struct Said {
  std::vector<std::string> lines;
  Say say = [this](const std::string& line) { lines.push_back(line); };
};

TEST(RunDevice, NamesAreKnown) {
  for (const char* name : {"auto", "cpu", "cuda"}) EXPECT_NO_THROW(check_device_name(name));
  EXPECT_EQ(error_of([] { check_device_name("gpu"); }), "--device: expected cpu, cuda or auto, found gpu");
  EXPECT_THAT(error_of([] { open_device({"gpu", kLanes}, Said().say); }), HasSubstr("found gpu"));
}

TEST(RunDevice, OpensWhatIsAskedFor) {
  Said said;
  EXPECT_EQ(open_device({"cpu", kLanes}, said.say).name(), "cpu");
  for (const char* name : {"auto", "cuda"}) {
    const RunDevice device = open_device({name, kLanes}, said.say);
    EXPECT_EQ(device.name(), "cuda (the host's lanes)");
    EXPECT_EQ(device.kind(), "cuda");
  }
  EXPECT_EQ(error_of([&] {
              open_device({"cuda", kNone}, said.say);
            }),
            "--device cuda: no driver; use --device cpu, or auto");
  EXPECT_THAT(said.lines, IsEmpty());
  // A GPU that is passed over is named, a machine without one is not.
  EXPECT_EQ(open_device({"auto", kNone}, said.say).kind(), "cpu");
  EXPECT_EQ(said.lines.size(), cuda_device_status().devices.empty() ? 0U : 1U);
}

TEST(RunDevice, WhatItCannotRunGoesToTheCpuOrIsRefused) {
  Said said;
  const DeviceChoice automatic{"auto", kLanes};
  const DeviceChoice cuda{"cuda", kLanes};
  EXPECT_EQ(settled(open_device(automatic, said.say), automatic, needs_nothing, said.say).kind(), "cuda");
  EXPECT_THAT(said.lines, IsEmpty());
  EXPECT_EQ(settled(open_device(automatic, said.say), automatic, needs_more, said.say).kind(), "cpu");
  EXPECT_THAT(said.lines, ElementsAre(AllOf(HasSubstr("on the CPU"), HasSubstr("lowrank(rank=4)"))));
  EXPECT_THAT(error_of([&] { settled(open_device(cuda, said.say), cuda, needs_more, said.say); }),
              HasSubstr("use --device cpu"));
  // The CPU runs everything.
  EXPECT_EQ(settled({}, automatic, needs_more, said.say).kind(), "cpu");
}

TEST(RunDevice, AnalysesWhereThereIsTheMemory) {
  const PageSet pages = build_page_set({.sets = {{60}}}, textured_values(1));
  const RedundancyOptions analysis;
  const RunDevice large{make_lane_device()}, small{make_lane_device(4096)};
  const auto backend = [&](const RunDevice& device, const char* name, Said& said) {
    return analysis_backend(device, {name, kLanes}, pages, analysis, said.say);
  };
  Said said;
  EXPECT_EQ(backend(large, "auto", said)->device(), large.ops.get());
  EXPECT_EQ(backend({}, "auto", said), nullptr);
  EXPECT_THAT(said.lines, IsEmpty());
  EXPECT_EQ(backend(small, "auto", said), nullptr);
  EXPECT_THAT(said.lines, ElementsAre(AllOf(HasSubstr("on the CPU"), HasSubstr("the GPU's memory"))));
  EXPECT_THAT(error_of([&] { backend(small, "cuda", said); }),
              AllOf(HasSubstr("analysis: needs about"), HasSubstr("use --device cpu")));
}

TEST(RunDevice, TheReportNamesWhatAnalysed) {
  const PageSet pages = build_page_set({.sets = {{20}}}, textured_values(1));
  nlohmann::ordered_json facts = {{"recipe", "dense(f16)"}, {"options", nlohmann::ordered_json::object()}};
  for (const char* part : {"model", "sets", "prompts", "cache", "timing"})
    facts[part] = nlohmann::ordered_json::object();
  ThreadPool pool(1);
  Progress progress(Progress::Mode::kQuiet);
  RedundancyOptions analysis;
  analysis.cluster_iterations = 1;
  const auto report = [&] { return make_redundancy_report(pages, facts, analysis, {}, pool, progress).json; };
  const auto on_cpu = report();
  EXPECT_EQ(on_cpu["provenance"]["analysis_device"], "cpu");
  EXPECT_THAT(on_cpu["definitions"]["clusters"].get<std::string>(), HasSubstr("search on the CPU"));
  analysis.device = make_device_backend(make_lane_device());
  const auto on_device = report();
  EXPECT_EQ(on_device["provenance"]["analysis_device"], "cuda (the host's lanes)");
  EXPECT_THAT(on_device["definitions"]["clusters"].get<std::string>(), HasSubstr("search on the device"));
}

TEST(RunDevice, RecipesAreCheckedBeforeTheyRun) {
  const RunDevice device{make_lane_device()};
  const ModelConfig config = load_config(KVA_FIXTURES "/models/llama-f16");
  for (const char* recipe :
       {"dense(f16)", "dense(f32)", "quant(bits=8)", "nuq", "budget(bits=9)",
        "lowrank(layers=2) | quant(bits=4)", "dedup(exact) | H2O(keep=0.5)",
        "keys(plain, cache-relative); AttentionSink(sink=2, window=24)", "keys(plain); side(k): lowrank"})
    EXPECT_EQ(error_of([&] { check_recipe_runs(device, Recipe::parse(recipe), config, 8); }), "no error")
        << recipe;
  for (const char* recipe : {"zstd", "minicache(start=0) | gear"}) {
    EXPECT_THAT(error_of([&] { check_recipe_runs(device, Recipe::parse(recipe), config, 8); }),
                HasSubstr("--device cpu"))
        << recipe;
    EXPECT_EQ(error_of([&] { check_recipe_runs({}, Recipe::parse(recipe), config, 8); }), "no error");
  }
  EXPECT_EQ(device.ops->memory().free_bytes, device.ops->memory().total_bytes);
}

TEST(RunDevice, ItsMemoryIsReported) {
  EXPECT_TRUE(device_memory_json({}).is_null());
  const RunDevice device{make_lane_device(1 << 20)};
  void* weights = device.ops->allocate(5000);
  device.ops->free(device.ops->allocate(1000));
  const nlohmann::ordered_json memory = device_memory_json(device);
  EXPECT_EQ(memory.at("peak_device_bytes"), 5120 + 1024);  // in granules of 256 bytes
  EXPECT_EQ(memory.at("driver_used_bytes"), 5120);
  EXPECT_EQ(memory.at("driver_total_bytes"), 1 << 20);
  device.ops->free(weights);
  EXPECT_EQ(device_memory_line({{"cache", memory}}, "cache"),
            "peak 6.00 KiB with weights and workspace; the driver counts 5.00 KiB of 1.00 MiB used");
  EXPECT_EQ(device_memory_line({{"cache", nullptr}}, "cache"), "");
}

// A whole evaluation, with pages compressed in the device's memory as the text goes by.
TEST(RunDevice, AnEvaluationOnTheDeviceIsTheCpus) {
  const std::shared_ptr<DeviceOps> device = make_lane_device();
  Session run(2, device);
  Session on_cpu(2);
  const std::vector<std::string> recipes = {"dense(f32)", "quant(bits=8)"};
  const Evaluation found = run.evaluate(recipes);
  const Evaluation expected = on_cpu.evaluate(recipes);
  ASSERT_EQ(found.candidates.size(), expected.candidates.size());
  for (std::size_t c = 0; c < recipes.size(); ++c) {
    const auto& tokens = found.candidates[c].scores.tokens;
    const auto& wanted = expected.candidates[c].scores.tokens;
    ASSERT_EQ(tokens.size(), wanted.size());
    // A code that rounds the other way, since keys differ in their last bits, is worth 1/254 of a group.
    const double bound = c == 0 ? 1e-4 : 1e-2;
    for (std::size_t t = 0; t < tokens.size(); ++t)
      EXPECT_NEAR(tokens[t].nll, wanted[t].nll, bound) << recipes[c] << ", token " << t;
  }
}

}  // namespace
}  // namespace kva
