// Decoding steps that a device replays, beside the same steps launched piece by piece: every logit is equal
// to the bit, through growing contexts, page boundaries, ragged batches, sequences that end and join, and a
// plan between steps.
#include <gtest/gtest.h>

#include "runtime/model/generator.h"
#include "tests/runtime/kv/device_under_test.h"
#include "tests/runtime/model/decoding.h"

namespace kva {
namespace {

// Sequences of one cache, decoded together, one token each a step.
class Together {
 public:
  Together(Decoder& decoder, const KvCacheOptions& options, ThreadPool& pool)
      : decoder_(decoder), cache(options, pool) {}

  SequenceId add(int64_t prompt) {
    const SequenceId id = cache.add_sequence();
    step({{id, prompt}});
    return id;
  }
  void decode(const std::vector<SequenceId>& ids, int steps) {
    std::vector<std::pair<SequenceId, int64_t>> takes;
    takes.reserve(ids.size());
    for (const SequenceId id : ids) takes.emplace_back(id, 1);
    for (int i = 0; i < steps; ++i) step(takes);
  }
  // Its first page, in all tables, in another type.
  void change_first_page(SequenceId id, DType type) {
    Plan plan;
    const KvCacheOptions& options = cache.options();
    for (int layer = 0; layer < options.layers; ++layer)
      for (int head = 0; head < options.kv_heads; ++head)
        for (const Side side : {Side::kKey, Side::kValue}) {
          const int64_t tokens = options.page_tokens, dim = options.head_dim;
          std::vector<float> rows(static_cast<std::size_t>(tokens * dim));
          cache.read_page(id, layer, head, 0, side, {rows.data(), tokens, dim});
          NewSide changed{.codec = make_dense_codec(type),
                          .lane = side == Side::kKey ? Lane::kKeys : Lane::kValues,
                          .tokens = tokens,
                          .width = dim};
          changed.payload.resize(static_cast<std::size_t>(changed.codec->bytes(tokens, dim)));
          changed.codec->encode({rows.data(), tokens, dim}, {}, changed.payload.data());
          plan.edits.push_back(
              {.at = {id, layer, head, 0, side}, .new_side = static_cast<int>(plan.sides.size())});
          plan.sides.push_back(std::move(changed));
        }
    cache.apply(plan);
  }

  const std::vector<float>& logits() const { return logits_; }

 private:
  void step(const std::vector<std::pair<SequenceId, int64_t>>& takes) {
    Batch batch;
    std::vector<int32_t> tokens;
    std::vector<int64_t> rows;
    for (const auto& [id, count] : takes) {
      const int64_t start = cache.tokens(id);
      batch.spans.push_back({id, std::ssize(tokens), count, start});
      for (int64_t t = 0; t < count; ++t)
        tokens.push_back(
            static_cast<int32_t>((37 * (start + t) + int64_t{11} * id + 5) % decoder_.config().vocab));
      rows.push_back(std::ssize(tokens) - 1);
    }
    const int64_t vocab = decoder_.config().vocab;
    const std::size_t before = logits_.size();
    logits_.resize(before + rows.size() * static_cast<std::size_t>(vocab));
    decoder_.step(batch, tokens, cache, rows,
                  MatView<float>(logits_.data() + before, std::ssize(rows), vocab));
  }

  Decoder& decoder_;
  std::vector<float> logits_;

 public:
  KvCache cache;
};

struct Outcome {
  std::vector<float> logits;
  RecordingCounts counts;
};

using Script = std::function<void(Together&)>;

class DeviceRecording : public ::testing::TestWithParam<const char*> {
 protected:
  Outcome outcome(int32_t kept, DType pages, KeyBasis basis, const Script& script) {
    const std::shared_ptr<DeviceOps> device = device_under_test();
    device->keep_recordings(kept);
    Decoder decoder =
        Decoder::load(std::string(KVA_FIXTURES "/models/") + GetParam(), {.device = device}, pool);
    Together together(decoder, decoder.cache_options(4, pages, basis), pool);
    script(together);
    return {together.logits(), device->recordings()};
  }
  // The script's steps of one token a sequence: how many were replayed.
  void expect_same(const Script& script, int64_t steps, int64_t least_replayed, DType pages = DType::kF32,
                   KeyBasis basis = KeyBasis::kRotated) {
    if (!device_under_test()) GTEST_SKIP() << "no device";
    const Outcome replayed = outcome(8, pages, basis, script);
    const Outcome launched = outcome(0, pages, basis, script);
    EXPECT_EQ(replayed.logits, launched.logits);
    EXPECT_EQ(launched.counts, RecordingCounts());
    EXPECT_EQ(replayed.counts.launched + replayed.counts.replayed, steps);
    EXPECT_GE(replayed.counts.replayed, least_replayed);
    EXPECT_GE(replayed.counts.recorded, 1);
  }

  ThreadPool pool{1};
};

TEST_P(DeviceRecording, AGrowingContext) {
  const Script script = [](Together& t) { t.decode({t.add(3)}, 30); };
  for (const KeyBasis basis : {KeyBasis::kRotated, KeyBasis::kPlain, KeyBasis::kPageRelative})
    expect_same(script, 30, 18, DType::kF16, basis);
}

TEST_P(DeviceRecording, RaggedBatchesWhoseSequencesEndAndJoin) {
  const Script script = [](Together& t) {
    const SequenceId a = t.add(9), b = t.add(2), c = t.add(5);
    t.decode({a, b, c}, 10);
    t.cache.free_sequence(b);
    t.decode({a, c}, 8);
    const SequenceId d = t.add(6);
    t.decode({c, d, a}, 8);
    t.decode({a, c, d}, 3);
  };
  expect_same(script, 29, 12);
}

TEST_P(DeviceRecording, PagesOfAnotherKindAppear) {
  const Script script = [](Together& t) {
    const SequenceId a = t.add(5), b = t.add(9);
    t.decode({a, b}, 8);
    t.change_first_page(a, DType::kBF16);
    t.decode({a, b}, 8);
    t.change_first_page(b, DType::kBF16);
    t.change_first_page(a, DType::kF16);
    t.decode({a, b}, 8);
  };
  expect_same(script, 24, 10);
}

// Chunks and single steps take turns; the caches of two sequences of steps share the decoder.
TEST_P(DeviceRecording, ChunksInBetween) {
  const Script script = [](Together& t) {
    const SequenceId a = t.add(5);
    t.decode({a}, 3);
    const SequenceId b = t.add(17);
    t.decode({a}, 6);
    t.decode({b}, 6);
    t.decode({a}, 6);
  };
  expect_same(script, 21, 8);
}

TEST_P(DeviceRecording, ChosenTokensAreTheSame) {
  std::vector<std::vector<std::vector<int32_t>>> found;
  for (const int32_t kept : {8, 0}) {
    const std::shared_ptr<DeviceOps> device = device_under_test();
    if (!device) GTEST_SKIP() << "no device";
    device->keep_recordings(kept);
    Decoder decoder =
        Decoder::load(std::string(KVA_FIXTURES "/models/") + GetParam(), {.device = device}, pool);
    KvCache cache(decoder.cache_options(4, DType::kF16, KeyBasis::kRotated), pool);
    const GenerateResult result =
        generate(decoder, cache, {{1, 2, 3}, {4, 5}},
                 {.max_tokens = 24, .batch_size = 2, .sampler = {.temperature = 1.0, .seed = 3}});
    found.push_back({result.generations[0].tokens, result.generations[1].tokens});
    EXPECT_EQ(device->recordings().replayed > 10, kept > 0);
  }
  EXPECT_EQ(found[0], found[1]);
}

INSTANTIATE_TEST_SUITE_P(Checkpoints, DeviceRecording, ::testing::Values("llama", "gpt2", "opt", "qwen2"));

}  // namespace
}  // namespace kva
