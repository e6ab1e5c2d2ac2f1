// A real trained model against its golden file: stories260K in llama2.c's v0 format, turned into Hugging Face
// layout here.
#include <gtest/gtest.h>
#include <unistd.h>

#include <cstring>
#include <filesystem>
#include <nlohmann/json.hpp>

#include "runtime/io/file.h"
#include "runtime/model/generator.h"
#include "tests/runtime/model/decoding.h"

namespace kva {
namespace {

const std::string kModel = KVA_SHARED_DATA "/models/stories260K/stories260K.bin";
const std::string kGolden = KVA_SHARED_DATA "/golden/stories260K.json";

// Writes tensors as safetensors, F32.
class TensorWriter {
 public:
  void add(const std::string& name, const std::vector<int64_t>& shape, const float* values) {
    int64_t count = 1;
    for (const int64_t n : shape) count *= n;
    const std::size_t start = data_.size();
    data_.append(reinterpret_cast<const char*>(values), static_cast<std::size_t>(count) * sizeof(float));
    header_[name] = {{"dtype", "F32"}, {"shape", shape}, {"data_offsets", {start, data_.size()}}};
  }
  void write(const std::string& path) const {
    const std::string header = header_.dump();
    const uint64_t size = header.size();
    const std::string prefix(reinterpret_cast<const char*>(&size), sizeof(size));
    write_text_file(path, prefix + header + data_);
  }

 private:
  nlohmann::json header_;
  std::string data_;
};

struct Shape {
  int32_t dim, hidden_dim, layers, heads, kv_heads, vocab, positions;
};

// llama2.c rotates neighbouring elements, Hugging Face element i with i + half: element i of a head goes to
// (i / 2) + (i odd ? half : 0).
int split_place(int i, int head_dim) { return i / 2 + (i % 2) * head_dim / 2; }

std::vector<float> split_rows(const float* rows, int heads, int head_dim, int cols) {
  std::vector<float> result(static_cast<std::size_t>(heads * head_dim * cols));
  for (int h = 0; h < heads; ++h)
    for (int i = 0; i < head_dim; ++i)
      std::copy_n(rows + (h * head_dim + i) * cols, cols,
                  result.data() + (h * head_dim + split_place(i, head_dim)) * cols);
  return result;
}

void convert(const std::string& folder) {
  const MappedFile file(kModel);
  Shape s{};
  std::memcpy(&s, file.bytes().data(), sizeof(s));
  const auto* next = reinterpret_cast<const float*>(file.bytes().data() + sizeof(s));
  const auto take = [&](int64_t count) { return std::exchange(next, next + count); };
  const int64_t dim = s.dim;
  const int head_dim = s.dim / s.heads;
  const int64_t kv = int64_t{s.kv_heads} * head_dim;
  TensorWriter writer;
  writer.add("model.embed_tokens.weight", {s.vocab, dim}, take(s.vocab * dim));
  const auto each = [&](const std::string& name, const std::vector<int64_t>& shape, int rotated_heads = 0) {
    const int64_t count = shape.size() == 1 ? shape[0] : shape[0] * shape[1];
    for (int i = 0; i < s.layers; ++i) {
      const float* values = take(count);
      const auto split = split_rows(values, rotated_heads, head_dim, s.dim);
      writer.add("model.layers." + std::to_string(i) + "." + name + ".weight", shape,
                 rotated_heads ? split.data() : values);
    }
  };
  each("input_layernorm", {dim});
  each("self_attn.q_proj", {dim, dim}, s.heads);
  each("self_attn.k_proj", {kv, dim}, s.kv_heads);
  each("self_attn.v_proj", {kv, dim});
  each("self_attn.o_proj", {dim, dim});
  each("post_attention_layernorm", {dim});
  each("mlp.gate_proj", {s.hidden_dim, dim});
  each("mlp.down_proj", {dim, s.hidden_dim});
  each("mlp.up_proj", {s.hidden_dim, dim});
  writer.add("model.norm.weight", {dim}, take(dim));
  writer.write(folder + "/model.safetensors");
  nlohmann::json config;
  config["architectures"] = {"LlamaForCausalLM"};
  config["vocab_size"] = s.vocab;
  config["hidden_size"] = s.dim;
  config["intermediate_size"] = s.hidden_dim;
  config["num_hidden_layers"] = s.layers;
  config["num_attention_heads"] = s.heads;
  config["num_key_value_heads"] = s.kv_heads;
  config["max_position_embeddings"] = s.positions;
  config["rms_norm_eps"] = 1e-5;
  config["tie_word_embeddings"] = true;
  write_text_file(folder + "/config.json", config.dump());
}

class Stories260K : public ::testing::Test {
 protected:
  void SetUp() override {
    if (!std::filesystem::exists(kModel)) GTEST_SKIP() << kModel << " is not here";
    folder = std::filesystem::temp_directory_path() / ("kva-stories-" + std::to_string(::getpid()));
    std::filesystem::create_directories(folder);
    convert(folder);
    golden = nlohmann::json::parse(read_text_file(kGolden, 1 << 20));
    ids = golden["greedy_ids_with_bos"].get<std::vector<int32_t>>();
  }
  void TearDown() override {
    if (!folder.empty()) std::filesystem::remove_all(folder);
  }

  // K or V of a layer at a position, as the golden file has it: heads joined, neighbouring pairs.
  std::vector<float> joined(const std::vector<float>& side, const ModelConfig& config, int layer,
                            int64_t position, bool keys) const {
    const auto tokens = static_cast<int64_t>(ids.size());
    std::vector<float> result;
    for (int h = 0; h < config.kv_heads; ++h)
      for (int i = 0; i < config.head_dim; ++i)
        result.push_back(side[static_cast<std::size_t>(((layer * config.kv_heads + h) * tokens + position) *
                                                           config.head_dim +
                                                       (keys ? split_place(i, config.head_dim) : i))]);
    return result;
  }

  std::string folder;
  nlohmann::json golden;
  std::vector<int32_t> ids;
};

TEST_F(Stories260K, LogitsKeysAndValuesAreGolden) {
  ThreadPool pool(2);
  Decoder decoder = Decoder::load(folder, {}, pool);
  const ModelConfig& config = decoder.config();
  const auto vocab = static_cast<std::size_t>(config.vocab);
  KvCache cache(decoder.cache_options(16, DType::kF32, KeyBasis::kRotated), pool);
  SequenceId sequence = 0;
  const auto logits = run_alone(decoder, cache, ids, {33, 1}, &sequence);
  for (const auto& expected : golden["logits"]) {
    const auto row = std::span(logits).subspan(expected["pos"].get<std::size_t>() * vocab, vocab);
    const double largest = expected["max"].get<double>();
    EXPECT_EQ(most_likely(row), expected["argmax"].get<int32_t>());
    EXPECT_NEAR(*std::max_element(row.begin(), row.end()), largest, 1e-4 * largest);
    const auto first = expected["logits_first8"].get<std::vector<float>>();
    EXPECT_LE(relative_error(row.first(first.size()), first), 1e-4);
  }
  const auto k = read_side(cache, sequence, Side::kKey);
  const auto v = read_side(cache, sequence, Side::kValue);
  const auto values = [&](const char* name) { return golden[name].get<std::vector<float>>(); };
  EXPECT_LE(relative_error(joined(k, config, 0, 0, true), values("k_layer0_pos0")), 1e-4);
  EXPECT_LE(relative_error(joined(v, config, 0, 0, false), values("v_layer0_pos0")), 1e-4);
  EXPECT_LE(relative_error(joined(k, config, 4, 7, true), values("k_layer4_pos7")), 1e-4);
}

TEST_F(Stories260K, GreedyTextIsGolden) {
  ThreadPool pool(2);
  Decoder decoder = Decoder::load(folder, {}, pool);
  for (const KeyBasis basis : {KeyBasis::kRotated, KeyBasis::kPlain, KeyBasis::kPageRelative}) {
    KvCache cache(decoder.cache_options(16, DType::kF32, basis), pool);
    const GenerateOptions options = {.max_tokens = static_cast<int64_t>(ids.size()) - 1};
    const auto result = generate(decoder, cache, {{ids[0]}}, options);
    EXPECT_TRUE(std::equal(ids.begin() + 1, ids.end(), result.generations[0].tokens.begin(),
                           result.generations[0].tokens.end()));
  }
}

}  // namespace
}  // namespace kva
