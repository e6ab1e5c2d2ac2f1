#include "runtime/model/decoder.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <unistd.h>

#include <cstring>
#include <filesystem>

#include "runtime/error.h"
#include "runtime/io/file.h"
#include "tests/runtime/model/decoding.h"

namespace kva {
namespace {

using ::testing::AllOf;
using ::testing::HasSubstr;
namespace fs = std::filesystem;

class DecoderTest : public ::testing::Test {
 protected:
  void TearDown() override { fs::remove_all(folder); }

  // A copy of a fixture that a test damages.
  void copy(const std::string& name) {
    fs::remove_all(folder);
    fs::copy(std::string(KVA_FIXTURES "/models/") + name, folder);
  }
  void replace(const std::string& file, const std::string& from, const std::string& to) {
    const std::string path = folder + "/" + file;
    std::string content = read_text_file(path, 1 << 24);
    const auto at = content.find(from);
    ASSERT_NE(at, std::string::npos) << from;
    content.replace(at, from.size(), to);
    write_text_file(path, content);
  }
  // Overwrites the first value of a tensor.
  void poison(const std::string& name, float value) {
    const std::string path = folder + "/model.safetensors";
    std::string content = read_text_file(path, 1 << 24);
    uint64_t header = 0;
    std::memcpy(&header, content.data(), sizeof(header));
    const JsonNode entry = JsonNode::parse_text(content.substr(8, header), path).at(name);
    const int64_t start = entry.at("data_offsets").at(int64_t{0}).as_int(0, 1 << 24);
    std::memcpy(content.data() + 8 + header + start, &value, sizeof(value));
    write_text_file(path, content);
  }
  std::string load_error(const LoadOptions& options = {}) {
    try {
      Decoder::load(folder, options, pool);
    } catch (const InputError& error) {
      return error.what();
    }
    return "no error";
  }

  ThreadPool pool{2};
  std::string folder = fs::temp_directory_path() / ("kva-decoder-" + std::to_string(::getpid()));
};

TEST_F(DecoderTest, NamesMissingAndMisshapenTensors) {
  copy("llama");
  replace("model.safetensors", "model.layers.1.mlp.up_proj.weight", "model.layers.1.mlp.xx_proj.weight");
  EXPECT_THAT(load_error(),
              AllOf(HasSubstr("model.safetensors"), HasSubstr("model.layers.1.mlp.up_proj.weight")));
  copy("llama");
  replace("config.json", "\"intermediate_size\": 56", "\"intermediate_size\": 57");
  EXPECT_THAT(load_error(), AllOf(HasSubstr("gate_proj.weight"), HasSubstr("57"), HasSubstr("56")));
  copy("gpt2");
  replace("config.json", "\"n_positions\": 64", "\"n_positions\": 65");
  EXPECT_THAT(load_error(), AllOf(HasSubstr("wpe.weight"), HasSubstr("65")));
}

TEST_F(DecoderTest, RefusesValuesThatAreNotFinite) {
  for (const char* name : {"model.layers.0.self_attn.q_proj.weight", "model.norm.weight", "lm_head.weight"}) {
    copy("llama");
    poison(name, NAN);
    EXPECT_THAT(load_error(), HasSubstr(name));
    poison(name, INFINITY);
    EXPECT_THAT(load_error(), HasSubstr(name));
  }
  copy("llama");
  poison("lm_head.weight", 1e6f);
  EXPECT_EQ(load_error(), "no error");
  EXPECT_THAT(load_error({.weights = DType::kF16}), AllOf(HasSubstr("lm_head.weight"), HasSubstr("f16")));
}

TEST_F(DecoderTest, RefusesTokensAndPositionsBeforeAnythingChanges) {
  copy("opt");
  Decoder decoder = Decoder::load(folder, {}, pool);
  KvCache cache(decoder.cache_options(16, DType::kF32, KeyBasis::kRotated), pool);
  const auto error = [&](const std::vector<int32_t>& tokens, int64_t start,
                         SequenceId sequence) -> std::string {
    try {
      const Batch batch{{{sequence, 0, static_cast<int64_t>(tokens.size()), start}}};
      decoder.step(batch, tokens, cache, {}, MatView<float>());
    } catch (const InputError& problem) {
      return problem.what();
    }
    return "no error";
  };
  const SequenceId sequence = cache.add_sequence();
  EXPECT_THAT(error({1, -1}, 0, sequence), HasSubstr("token id -1: expected an id from 0 to 95"));
  EXPECT_THAT(error({96}, 0, sequence), HasSubstr("token id 96"));
  EXPECT_THAT(error(std::vector<int32_t>(65, 1), 0, sequence),
              AllOf(HasSubstr("context of 65 tokens"), HasSubstr("at most 64")));
  EXPECT_EQ(cache.tokens(sequence), 0);
  EXPECT_EQ(error(std::vector<int32_t>(64, 1), 0, sequence), "no error");
  EXPECT_THAT(error({1}, 64, sequence), HasSubstr("at most 64"));
  EXPECT_EQ(cache.tokens(sequence), 64);
}

TEST_F(DecoderTest, ASlidingWindowIsRefusedOnlyBeyondIt) {
  copy("mistral");
  replace("config.json", "\"sliding_window\": null", "\"sliding_window\": 40");
  const Golden golden = load_golden(folder);
  Decoder decoder = Decoder::load(folder, {}, pool);
  KvCache cache(decoder.cache_options(16, DType::kF32, KeyBasis::kRotated), pool);
  EXPECT_LE(relative_error(run_alone(decoder, cache, golden.tokens, {40}), golden.logits), 1e-4);
  std::vector<int32_t> longer = golden.tokens;
  longer.push_back(1);
  try {
    run_alone(decoder, cache, longer, {41});
    FAIL() << "no error";
  } catch (const InputError& error) {
    EXPECT_THAT(error.what(), HasSubstr("sliding_window of 40"));
  }
}

TEST_F(DecoderTest, CountsParametersAndBytesOnce) {
  copy("llama-f16");
  // 96 * 32 twice (untied), 2 layers of q, o 32 * 32, k, v 16 * 32, three of 56 * 32, two norms, and the last
  // norm.
  const int64_t matrices = 2 * 96 * 32 + 2 * (2 * 32 * 32 + 2 * 16 * 32 + 3 * 56 * 32);
  const int64_t vectors = 2 * 2 * 32 + 32;
  const Decoder stored = Decoder::load(folder, {}, pool);
  EXPECT_EQ(stored.parameters(), matrices + vectors);
  EXPECT_EQ(stored.weight_bytes(), 2 * matrices + 4 * vectors);
  EXPECT_EQ(stored.bytes_per_token(), stored.weight_bytes() - 2 * 96 * 32);
  EXPECT_EQ(Decoder::load(folder, {.weights = DType::kF32}, pool).weight_bytes(), 4 * (matrices + vectors));
  // A byte a weight, and four for each 64 inputs of an output or fewer: all inputs here are 32 or 56.
  const int64_t outputs = 2 * 96 + 2 * (2 * 32 + 2 * 16 + 2 * 56 + 32);
  EXPECT_EQ(Decoder::load(folder, {.weights = weight_form("int8")}, pool).weight_bytes(),
            matrices + 4 * outputs + 4 * vectors);
  EXPECT_EQ(stored.tensor_hash(), TensorArchive::open_folder(folder).hash());
}

TEST_F(DecoderTest, WeightFormsAreNamed) {
  EXPECT_FALSE(weight_form("stored").type);
  EXPECT_EQ(weight_form("bf16").type, DType::kBF16);
  EXPECT_TRUE(weight_form("int8").int8);
  try {
    weight_form("int4");
    FAIL() << "no error";
  } catch (const InputError& error) {
    EXPECT_STREQ(error.what(), "--weights: expected stored, f32, f16, bf16 or int8, found int4");
  }
}

TEST_F(DecoderTest, LogitsComeForTheAskedRowsOnly) {
  copy("qwen2");
  const Golden golden = load_golden(folder);
  Decoder decoder = Decoder::load(folder, {}, pool);
  KvCache cache(decoder.cache_options(16, DType::kF32, KeyBasis::kRotated), pool);
  const int64_t rows[] = {0, 17, 39};
  std::vector<float> logits(3 * 96);
  std::vector<float> expected;
  decoder.step(Batch{{{cache.add_sequence(), 0, 40, 0}}}, golden.tokens, cache, rows,
               MatView<float>(logits.data(), 3, 96));
  for (const int64_t row : rows)
    expected.insert(expected.end(), golden.logits.begin() + row * 96, golden.logits.begin() + (row + 1) * 96);
  EXPECT_LE(relative_error(logits, expected), 1e-4);
}

}  // namespace
}  // namespace kva
