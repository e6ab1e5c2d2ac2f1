// The decoder on a device: logits, keys and values against Hugging Face transformers and against the CPU, on
// small random checkpoints of every family.
#include <gtest/gtest.h>
#include <unistd.h>

#include <filesystem>

#include "runtime/io/file.h"
#include "runtime/model/generator.h"
#include "tests/runtime/kv/device_under_test.h"
#include "tests/runtime/model/checkpoints.h"
#include "tests/runtime/model/decoding.h"

namespace kva {
namespace {

namespace fs = std::filesystem;

constexpr double kBound = 1e-4;  // of f32, as decoder_golden_test.cc has it

class DeviceDecoder : public ::testing::TestWithParam<std::string> {
 protected:
  void SetUp() override {
    if (!device) GTEST_SKIP() << "no device";
    if (load_config(folder).head_dim % 8 != 0) take_other_heads();
  }
  void TearDown() override { fs::remove_all(made); }

  Decoder load(const WeightForm& weights) {
    return Decoder::load(folder, {.weights = weights, .device = device}, pool);
  }
  Decoder load_on_cpu() { return Decoder::load(folder, {.weights = DType::kF32}, pool); }

  // Devices attend to heads of a multiple of 8 numbers. Weights for 2 heads of 20 are weights for 5 of 8 as
  // well; what is expected of them comes from the CPU's decoder.
  void take_other_heads() {
    fs::copy(folder, made);
    folder = made;
    std::string config = read_text_file(made + "/config.json", 1 << 20);
    for (const std::string name : {"\"num_attention_heads\": ", "\"n_head\": "})
      if (const auto at = config.find(name + "2"); at != std::string::npos) config[at + name.size()] = '5';
    write_text_file(made + "/config.json", config);
    Decoder decoder = load_on_cpu();
    ASSERT_EQ(decoder.config().head_dim, 8);
    KvCache cache(decoder.cache_options(16, DType::kF32, KeyBasis::kRotated), pool);
    SequenceId sequence = 0;
    golden.logits = run_alone(decoder, cache, golden.tokens, {40}, &sequence);
    golden.k = read_side(cache, sequence, Side::kKey);
    golden.v = read_side(cache, sequence, Side::kValue);
  }
  void expect_golden(const KvCache& cache, SequenceId sequence, std::span<const float> logits, double bound) {
    EXPECT_LE(relative_error(logits, golden.logits), bound) << "logits";
    EXPECT_LE(relative_error(read_side(cache, sequence, Side::kKey), golden.k), bound) << "K";
    EXPECT_LE(relative_error(read_side(cache, sequence, Side::kValue), golden.v), bound) << "V";
  }

  const std::shared_ptr<DeviceOps> device = device_under_test();
  ThreadPool pool{2};
  std::string folder = checkpoint_folder(GetParam());
  std::string made = fs::temp_directory_path() / ("kva-device-decoder-" + std::to_string(::getpid()));
  Golden golden = load_golden(folder);
};

TEST_P(DeviceDecoder, ChunksOfAnySize) {
  Decoder decoder = load(DType::kF32);
  EXPECT_EQ(decoder.device(), device->name());
  EXPECT_FALSE(decoder.rounds_activations());
  KvCache cache(decoder.cache_options(16, DType::kF32, KeyBasis::kRotated), pool);
  for (const std::vector<int64_t>& chunks : {std::vector<int64_t>{40}, {17, 23}, {38, 1}}) {
    SCOPED_TRACE("first chunk " + std::to_string(chunks[0]));
    SequenceId sequence = 0;
    const auto logits = run_alone(decoder, cache, golden.tokens, chunks, &sequence);
    expect_golden(cache, sequence, logits, kBound);
    cache.free_sequence(sequence);
  }
}

// As SixteenBitWeightsAndPages of decoder_golden_test.cc: 4 products a layer and the head, each rounding its
// weights and its input.
TEST_P(DeviceDecoder, SixteenBitWeightsAndPages) {
  for (const DType type : {DType::kF16, DType::kBF16}) {
    SCOPED_TRACE(std::string(dtype_name(type)));
    Decoder decoder = load(type);
    EXPECT_EQ(decoder.weight_form(), dtype_name(type));
    EXPECT_TRUE(decoder.rounds_activations());
    KvCache cache(decoder.cache_options(16, type, KeyBasis::kRotated), pool);
    const double roundoff = type == DType::kF16 ? 0x1p-11 : 0x1p-8;
    const double products = 4 * decoder.config().layers + 1;
    const double sharpness = decoder.config().attention_scale * std::sqrt(decoder.config().head_dim);
    SequenceId sequence = 0;
    const auto logits = run_alone(decoder, cache, golden.tokens, {40}, &sequence);
    expect_golden(cache, sequence, logits, products * roundoff * sharpness);
    EXPECT_GT(relative_error(logits, golden.logits), 0.0);
  }
}

// 8-bit codes are widened tile by tile: the CPU's logits for the same codes, chosen tokens too.
TEST_P(DeviceDecoder, EightBitWeights) {
  const WeightForm int8 = weight_form("int8");
  Decoder decoder = load(int8);
  Decoder on_cpu = Decoder::load(folder, {.weights = int8}, pool);
  EXPECT_EQ(decoder.weight_form(), "int8");
  EXPECT_FALSE(decoder.rounds_activations());
  KvCache cache(decoder.cache_options(16, DType::kF32, KeyBasis::kRotated), pool);
  KvCache cpu_cache(on_cpu.cache_options(16, DType::kF32, KeyBasis::kRotated), pool);
  const auto logits = run_alone(decoder, cache, golden.tokens, {20, 1});
  const auto expected = run_alone(on_cpu, cpu_cache, golden.tokens, {20, 1});
  EXPECT_LE(relative_error(logits, expected), kBound);
  EXPECT_GT(relative_error(logits, golden.logits), 0.0);
}

// Three sequences of unequal lengths in two steps, and the logits of some rows: those of each alone, on the
// CPU.
TEST_P(DeviceDecoder, RaggedBatches) {
  Decoder decoder = load(DType::kF32);
  Decoder on_cpu = load_on_cpu();
  KvCache cache(decoder.cache_options(7, DType::kF32, KeyBasis::kRotated), pool);
  const std::vector<int32_t> other(golden.tokens.rbegin(), golden.tokens.rend());
  const std::vector<std::vector<int32_t>> texts = {
      other, golden.tokens, {other.begin() + 3, other.begin() + 30}};
  const std::vector<std::vector<int64_t>> chunks = {{1, 20}, {20, 3}, {16, 1}};
  const int64_t vocab = decoder.config().vocab;
  std::vector<SequenceId> ids;
  std::vector<std::vector<float>> expected;
  for (std::size_t s = 0; s < texts.size(); ++s) {
    ids.push_back(cache.add_sequence());
    KvCache alone(on_cpu.cache_options(16, DType::kF32, KeyBasis::kRotated), pool);
    expected.push_back(run_alone(on_cpu, alone, texts[s], {40}));
  }
  std::vector<int64_t> done(texts.size(), 0);
  for (std::size_t step = 0; step < 2; ++step) {
    Batch batch;
    std::vector<int32_t> tokens;
    std::vector<int64_t> rows;
    std::vector<float> wanted;
    for (std::size_t s = 0; s < texts.size(); ++s) {
      const int64_t size = chunks[s][step];
      batch.spans.push_back({ids[s], static_cast<int64_t>(tokens.size()), size, done[s]});
      tokens.insert(tokens.end(), texts[s].begin() + done[s], texts[s].begin() + done[s] + size);
      done[s] += size;
      rows.push_back(static_cast<int64_t>(tokens.size()) - 1);
      wanted.insert(wanted.end(), expected[s].begin() + (done[s] - 1) * vocab,
                    expected[s].begin() + done[s] * vocab);
    }
    // Rows apart, with a guard behind each.
    std::vector<float> logits(rows.size() * static_cast<std::size_t>(vocab + 1), -7.0f);
    const auto count = static_cast<int64_t>(rows.size());
    decoder.step(batch, tokens, cache, rows, MatView<float>(logits.data(), count, vocab, vocab + 1));
    std::vector<float> found;
    for (int64_t r = 0; r < count; ++r) {
      EXPECT_EQ(logits[static_cast<std::size_t>(r * (vocab + 1) + vocab)], -7.0f);
      found.insert(found.end(), logits.begin() + r * (vocab + 1), logits.begin() + r * (vocab + 1) + vocab);
    }
    EXPECT_LE(relative_error(found, wanted), kBound) << "step " << step;
  }
}

// Only ids come back; the likeliest token and the sampled one are the CPU's.
TEST_P(DeviceDecoder, ChoosesTokens) {
  Decoder decoder = load(DType::kF32);
  Decoder on_cpu = load_on_cpu();
  const auto& ids = golden.tokens;
  const std::vector<std::vector<int32_t>> prompts = {
      {ids.begin(), ids.begin() + 20}, {ids.begin() + 5, ids.begin() + 9}, {ids[7]}};
  GenerateOptions options{.max_tokens = 6, .batch_size = 2, .chunk_tokens = 16};
  for (const SamplerOptions& sampler :
       {SamplerOptions(), SamplerOptions{.temperature = 0.8, .top_k = 20, .top_p = 0.9, .seed = 3},
        SamplerOptions{.temperature = 1.5, .top_k = 1000, .seed = 4}}) {
    options.sampler = sampler;
    KvCache cache(decoder.cache_options(16, DType::kF32, KeyBasis::kRotated), pool);
    KvCache cpu_cache(on_cpu.cache_options(16, DType::kF32, KeyBasis::kRotated), pool);
    const GenerateResult found = generate(decoder, cache, prompts, options);
    const GenerateResult expected = generate(on_cpu, cpu_cache, prompts, options);
    for (std::size_t i = 0; i < prompts.size(); ++i)
      EXPECT_EQ(found.generations[i].tokens, expected.generations[i].tokens)
          << "prompt " << i << ", temperature " << sampler.temperature;
  }
}

TEST_P(DeviceDecoder, TheSameStepsGiveTheSameBits) {
  std::vector<std::vector<float>> results;
  for (int run = 0; run < 2; ++run) {
    Decoder decoder = load({});
    KvCache cache(decoder.cache_options(16, DType::kF16, KeyBasis::kRotated), pool);
    results.push_back(run_alone(decoder, cache, golden.tokens, {30, 1}));
  }
  EXPECT_EQ(results[0], results[1]);
}

INSTANTIATE_TEST_SUITE_P(Checkpoints, DeviceDecoder, ::testing::ValuesIn(checkpoints()), checkpoint_name);

}  // namespace
}  // namespace kva
