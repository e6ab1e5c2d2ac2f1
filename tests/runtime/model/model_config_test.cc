#include "runtime/model/model_config.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <unistd.h>

#include <filesystem>
#include <nlohmann/json.hpp>

#include "runtime/error.h"
#include "runtime/io/file.h"

namespace kva {
namespace {

using nlohmann::json;
using ::testing::AllOf;
using ::testing::ElementsAre;
using ::testing::HasSubstr;

class ModelConfigTest : public ::testing::Test {
 protected:
  void SetUp() override { std::filesystem::create_directories(folder); }
  void TearDown() override { std::filesystem::remove_all(folder); }

  ModelConfig load(const json& config) {
    write_text_file(folder + "/config.json", config.dump());
    return load_config(folder);
  }
  std::string error(const json& config) {
    try {
      load(config);
    } catch (const InputError& problem) {
      return problem.what();
    }
    return "no error";
  }

  std::string folder = std::filesystem::temp_directory_path() / ("kva-config-" + std::to_string(::getpid()));
  // SmolLM2-135M.
  json llama = json::parse(R"({"architectures": ["LlamaForCausalLM"], "vocab_size": 49152, "hidden_size": 576,
      "intermediate_size": 1536, "num_hidden_layers": 30, "num_attention_heads": 9, "num_key_value_heads": 3,
      "max_position_embeddings": 8192, "rope_theta": 100000.0, "tie_word_embeddings": true, "eos_token_id": 2})");
  json opt = json::parse(R"({"architectures": ["OPTForCausalLM"], "vocab_size": 50272, "hidden_size": 768,
      "num_hidden_layers": 12, "num_attention_heads": 12, "ffn_dim": 3072, "max_position_embeddings": 2048})");
};

TEST_F(ModelConfigTest, ReadsALlama) {
  const ModelConfig config = load(llama);
  EXPECT_EQ(config.family, "llama");
  EXPECT_EQ(config.head_dim, 64);
  EXPECT_EQ(config.kv_heads, 3);
  EXPECT_EQ(config.norm, NormKind::kRmsNorm);
  EXPECT_TRUE(config.gated_ffn);
  EXPECT_EQ(config.kv_bytes_per_token(DType::kF16, DType::kF16), 23040);  // 2 * 30 * 3 * 64 * 2
  EXPECT_EQ(config.rope()->head_dim(), 64);
}

TEST_F(ModelConfigTest, ReadsAnOpt) {
  const ModelConfig config = load(opt);
  EXPECT_EQ(config.position, PositionKind::kLearned);
  EXPECT_EQ(config.position_offset, 2);
  EXPECT_TRUE(config.tied_embeddings);
  EXPECT_FALSE(config.rope().has_value());
  EXPECT_EQ(config.kv_bytes_per_token(DType::kF16, DType::kF16), 36864);  // 2 * 12 * 768 * 2
}

TEST_F(ModelConfigTest, JoinsEndTokens) {
  llama["eos_token_id"] = {128001, 128009};
  write_text_file(folder + "/generation_config.json", R"({"eos_token_id": [128008, 128009]})");
  EXPECT_THAT(load(llama).eos_ids, ElementsAre(128001, 128009, 128008));
}

TEST_F(ModelConfigTest, NamesWhatIsNotSupported) {
  json other = llama;
  other["architectures"] = {"GemmaForCausalLM"};
  EXPECT_THAT(error(other), AllOf(HasSubstr("config.json: architectures[0]"), HasSubstr("GPT2LMHeadModel"),
                                  HasSubstr("found \"GemmaForCausalLM\"")));
  other.erase("architectures");
  other["model_type"] = "mamba";
  EXPECT_THAT(error(other), AllOf(HasSubstr("model_type"), HasSubstr("mamba"), HasSubstr("OPTForCausalLM")));
  llama["rope_scaling"] = {{"rope_type", "yarn"}, {"factor", 4.0}};
  EXPECT_THAT(error(llama),
              AllOf(HasSubstr("rope_scaling.rope_type"), HasSubstr("linear, llama3"), HasSubstr("yarn")));
  llama["rope_scaling"] = {{"type", "dynamic"}, {"factor", 4.0}};
  EXPECT_THAT(error(llama), HasSubstr("dynamic"));
  llama.erase("rope_scaling");
  llama["hidden_act"] = "mish";
  EXPECT_THAT(error(llama), AllOf(HasSubstr("hidden_act"), HasSubstr("gelu_new"), HasSubstr("mish")));
  llama.erase("hidden_act");
  llama["quantization_config"] = {{"quant_method", "gptq"}};
  EXPECT_THAT(error(llama), AllOf(HasSubstr("quantization_config"), HasSubstr("BF16")));
}

TEST_F(ModelConfigTest, AWindowEndsTheUsableContext) {
  llama["architectures"] = {"MistralForCausalLM"};
  EXPECT_EQ(load(llama).usable_positions(), 4096);  // transformers' default where the field is absent
  llama["sliding_window"] = nullptr;
  EXPECT_EQ(load(llama).usable_positions(), 8192);
  llama["sliding_window"] = 1024;
  EXPECT_EQ(load(llama).usable_positions(), 1024);
  EXPECT_THAT(load(llama).usable_positions_reason(), HasSubstr("sliding_window of 1024"));
  llama["architectures"] = {"Qwen2ForCausalLM"};
  EXPECT_EQ(load(llama).usable_positions(), 8192);
  llama["use_sliding_window"] = true;
  EXPECT_EQ(load(llama).usable_positions(), 1024);
}

TEST_F(ModelConfigTest, RefusesNumbersThatCannotBe) {
  const auto with = [&](const char* key, const json& value) {
    json changed = llama;
    changed[key] = value;
    return error(changed);
  };
  EXPECT_THAT(with("num_key_value_heads", 4), HasSubstr("num_key_value_heads: expected a divisor of the 9"));
  EXPECT_THAT(with("num_attention_heads", 7), HasSubstr("heads divides, found 576 and 7"));
  EXPECT_THAT(with("num_hidden_layers", 0),
              HasSubstr("num_hidden_layers: expected a whole number from 1 to 1024"));
  EXPECT_THAT(with("vocab_size", 1e30), HasSubstr("vocab_size"));
  EXPECT_THAT(with("hidden_size", "big"), HasSubstr("hidden_size"));
  EXPECT_THAT(with("head_dim", 63), HasSubstr("even"));
  EXPECT_THAT(with("rms_norm_eps", -1), HasSubstr("rms_norm_eps"));
  llama.erase("vocab_size");
  EXPECT_THAT(error(llama), HasSubstr("vocab_size: this field is required"));
}

}  // namespace
}  // namespace kva
