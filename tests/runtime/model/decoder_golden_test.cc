// Logits, keys and values against Hugging Face transformers, on small random checkpoints of every family
// (scripts/make_golden.py).
#include <gtest/gtest.h>

#include "tests/runtime/model/checkpoints.h"
#include "tests/runtime/model/decoding.h"

namespace kva {
namespace {

constexpr double kBound = 1e-4;  // in f32

class GoldenTest : public ::testing::TestWithParam<std::string> {
 protected:
  ThreadPool pool{2};
  Golden golden = load_golden(checkpoint_folder(GetParam()));

  // Activations are kept in f32, so that the bound holds for 16-bit weights too.
  Decoder load() { return Decoder::load(checkpoint_folder(GetParam()), {.hardware_bf16 = false}, pool); }

  void expect_golden(const KvCache& cache, SequenceId sequence, std::span<const float> logits, double bound) {
    EXPECT_LE(relative_error(logits, golden.logits), bound) << "logits";
    EXPECT_LE(relative_error(read_side(cache, sequence, Side::kKey), golden.k), bound) << "K";
    EXPECT_LE(relative_error(read_side(cache, sequence, Side::kValue), golden.v), bound) << "V";
  }
};

TEST_P(GoldenTest, AnyChunkingKeyBasisAndPageSize) {
  Decoder decoder = load();
  const std::vector<std::vector<int64_t>> chunkings = {{40}, {1}, {7}, {17, 23}, {32, 1}};
  for (const KeyBasis basis : {KeyBasis::kRotated, KeyBasis::kPlain, KeyBasis::kPageRelative}) {
    for (const int page_tokens : {16, 7}) {
      KvCache cache(decoder.cache_options(page_tokens, DType::kF32, basis), pool);
      for (const auto& chunks : chunkings) {
        SCOPED_TRACE("basis " + std::to_string(static_cast<int>(basis)) + ", pages of " +
                     std::to_string(page_tokens) + ", first chunk " + std::to_string(chunks[0]));
        SequenceId sequence = 0;
        const auto logits = run_alone(decoder, cache, golden.tokens, chunks, &sequence);
        expect_golden(cache, sequence, logits, kBound);
        cache.free_sequence(sequence);
      }
    }
  }
}

// Three sequences of unequal lengths in every step; the logits are not only close but the same bits as alone.
TEST_P(GoldenTest, CompanionsChangeNothing) {
  Decoder decoder = load();
  KvCache cache(decoder.cache_options(16, DType::kF32, KeyBasis::kRotated), pool);
  std::vector<int32_t> other(golden.tokens.rbegin(), golden.tokens.rend());
  const std::vector<std::vector<int32_t>> texts = {
      other, golden.tokens, {other.begin() + 3, other.begin() + 30}};
  const std::vector<std::vector<int64_t>> chunks = {{1, 30, 2, 7}, {20, 3, 16, 1}, {16, 1, 5, 5}};
  const int64_t vocab = decoder.config().vocab;
  std::vector<SequenceId> ids;
  std::vector<int64_t> done(texts.size(), 0);
  std::vector<std::vector<float>> logits(texts.size());
  for (std::size_t s = 0; s < texts.size(); ++s) ids.push_back(cache.add_sequence());
  for (std::size_t step = 0; step < 4; ++step) {
    Batch batch;
    std::vector<int32_t> tokens;
    for (std::size_t s = 0; s < texts.size(); ++s) {
      const int64_t size = chunks[s][step];
      batch.spans.push_back({ids[s], static_cast<int64_t>(tokens.size()), size, done[s]});
      tokens.insert(tokens.end(), texts[s].begin() + done[s], texts[s].begin() + done[s] + size);
      done[s] += size;
    }
    std::vector<int64_t> rows(tokens.size());
    std::iota(rows.begin(), rows.end(), 0);
    std::vector<float> out(tokens.size() * static_cast<std::size_t>(vocab));
    decoder.step(batch, tokens, cache, rows, MatView<float>(out.data(), batch.rows(), vocab));
    for (std::size_t s = 0; s < texts.size(); ++s) {
      const BatchSpan& span = batch.spans[s];
      logits[s].insert(logits[s].end(), out.begin() + span.first_row * vocab,
                       out.begin() + (span.first_row + span.tokens) * vocab);
    }
  }
  expect_golden(cache, ids[1], logits[1], kBound);
  for (std::size_t s = 0; s < texts.size(); ++s) {
    const std::span text(texts[s].data(), static_cast<std::size_t>(done[s]));
    EXPECT_EQ(logits[s], run_alone(decoder, cache, text, chunks[s])) << "sequence " << s;
  }
}

// Rounding to a type with unit roundoff u changes each of the products that follow one another by about u of
// its size: 4 a layer and the head, each rounding its weights (and, where the hardware multiplies bf16, its
// input). Softmax turns an error of the scores into one of their size times u: scores that are not divided by
// sqrt(head_dim) are as much larger, and so is their error.
TEST_P(GoldenTest, SixteenBitWeightsAndPages) {
  for (const DType type : {DType::kF16, DType::kBF16}) {
    Decoder decoder = Decoder::load(checkpoint_folder(GetParam()), {.weights = type}, pool);
    KvCache cache(decoder.cache_options(16, type, KeyBasis::kRotated), pool);
    const double roundoff = type == DType::kF16 ? 0x1p-11 : 0x1p-8;
    const double products = 4 * decoder.config().layers + 1;
    const double sharpness = decoder.config().attention_scale * std::sqrt(decoder.config().head_dim);
    SequenceId sequence = 0;
    const auto logits = run_alone(decoder, cache, golden.tokens, {40}, &sequence);
    SCOPED_TRACE(std::string(dtype_name(type)));
    expect_golden(cache, sequence, logits, products * roundoff * sharpness);
    EXPECT_GT(relative_error(logits, golden.logits), 0.0);
  }
}

// As above, with u = 4 / 254: a code is off by up to half its scale, max|w| / 254 of its group, and the
// largest of 64 weights is at most about 4 of their standard deviations. The embedding is one more product.
TEST_P(GoldenTest, EightBitWeights) {
  Decoder decoder = Decoder::load(checkpoint_folder(GetParam()), {.weights = weight_form("int8")}, pool);
  KvCache cache(decoder.cache_options(16, DType::kF32, KeyBasis::kRotated), pool);
  const double roundoff = 4.0 / 254.0;
  const double products = 4 * decoder.config().layers + 2;
  const double sharpness = decoder.config().attention_scale * std::sqrt(decoder.config().head_dim);
  SequenceId sequence = 0;
  const auto logits = run_alone(decoder, cache, golden.tokens, {40}, &sequence);
  expect_golden(cache, sequence, logits, products * roundoff * sharpness);
  EXPECT_GT(relative_error(logits, golden.logits), 0x1p-12);
  EXPECT_EQ(decoder.weight_form(), "int8");
}

TEST_P(GoldenTest, BitEqualAtAnyNumberOfThreads) {
  std::vector<std::vector<float>> results;
  for (const int threads : {1, 3}) {
    ThreadPool other(threads);
    Decoder decoder = Decoder::load(checkpoint_folder(GetParam()), {}, other);
    KvCache cache(decoder.cache_options(16, DType::kF16, KeyBasis::kPageRelative), other);
    results.push_back(run_alone(decoder, cache, golden.tokens, {30, 1}));
  }
  EXPECT_EQ(results[0], results[1]);
}

INSTANTIATE_TEST_SUITE_P(Checkpoints, GoldenTest, ::testing::ValuesIn(checkpoints()), checkpoint_name);

}  // namespace
}  // namespace kva
