// The decoder on a real model: prefill, decoding steps after a context of any length, and logits to compare.
#include <fmt/format.h>

#include <algorithm>
#include <cstring>
#include <fstream>
#include <iterator>
#include <memory>
#include <numeric>
#include <random>
#include <tuple>
#include <utility>
#include <vector>

#include "compressors/compressor.h"
#include "runtime/error.h"
#include "runtime/kv/kv_cache.h"
#include "runtime/model/decoder.h"
#include "runtime/model/model_config.h"
#include "tests/bench/probes.h"
#include "tests/bench/turns/turn.h"

namespace kva {
namespace {

// A model and its threads, shared by all turns that ask for the same.
struct Loaded {
  explicit Loaded(const TurnSettings& s)
      : pool(static_cast<int>(s.number("threads"))),
        decoder(Decoder::load(s.text("model"), {.weights = weight_form(s.text("weights"))}, pool)) {}
  ThreadPool pool;
  Decoder decoder;
};

std::shared_ptr<Loaded> load(const TurnSettings& s) {
  static std::map<std::string, std::weak_ptr<Loaded>> all;
  const std::string key = fmt::format("{}\t{}\t{}", s.text("threads"), s.text("weights"), s.text("model"));
  auto loaded = all[key].lock();
  if (!loaded) all[key] = loaded = std::make_shared<Loaded>(s);
  return loaded;
}

// Token ids that every program can make: their values do not matter, that they differ does.
std::vector<int32_t> some_tokens(int64_t count, int64_t vocab) {
  std::vector<int32_t> tokens(static_cast<std::size_t>(count));
  for (std::size_t i = 0; i < tokens.size(); ++i)
    tokens[i] = static_cast<int32_t>((100 + 7919 * static_cast<int64_t>(i)) % vocab);
  return tokens;
}

// prefill tokens=N weights=TYPE threads=T model=FOLDER: N tokens of a new sequence in one step, f16 pages,
// logits of the last.
class PrefillTurn : public Turn {
 public:
  explicit PrefillTurn(const TurnSettings& s)
      : loaded_(load(s)),
        cache_(loaded_->decoder.cache_options(16, DType::kF16, KeyBasis::kRotated), loaded_->pool),
        tokens_(some_tokens(s.number("tokens"), loaded_->decoder.config().vocab)),
        logits_(static_cast<std::size_t>(loaded_->decoder.config().vocab)) {
    facts = {{"tokens", static_cast<double>(tokens_.size())}};
    seconds();
  }
  double seconds() override {
    const auto count = static_cast<int64_t>(tokens_.size());
    const SequenceId sequence = cache_.add_sequence();
    const Batch batch{{{sequence, 0, count, 0}}};
    const int64_t last = count - 1;
    const double time = seconds_of([&] {
      loaded_->decoder.step(batch, tokens_, cache_, {&last, 1},
                            MatView<float>(logits_.data(), 1, loaded_->decoder.config().vocab));
    });
    cache_.free_sequence(sequence);
    return time;
  }

 private:
  std::shared_ptr<Loaded> loaded_;
  KvCache cache_;
  std::vector<int32_t> tokens_;
  std::vector<float> logits_;
};

// layer_products tokens=N type=TYPE threads=T model=FOLDER: the bare products of all layers that N tokens
// take, each thread its share of the tokens.
class LayerProductsTurn : public Turn {
 public:
  explicit LayerProductsTurn(const TurnSettings& s) : pool_(static_cast<int>(s.number("threads"))) {
    const ModelConfig config = load_config(s.text("model"));
    const int64_t tokens = s.number("tokens");
    const int64_t rows = tokens / pool_.threads();
    const int64_t heads = int64_t{config.heads} * config.head_dim;
    const int64_t kv = int64_t{config.kv_heads} * config.head_dim;
    const DType type = parse_dtype(s.text("type")).value_or(DType::kF32);
    for (const auto& [inner, outputs, times] : {std::tuple{config.hidden, heads, 1},
                                                {config.hidden, kv, 2},
                                                {heads, config.hidden, 1},
                                                {config.hidden, config.ffn, config.gated_ffn ? 2 : 1},
                                                {config.ffn, config.hidden, 1}}) {
      probes_.emplace_back(type, pool_, ProductShape{rows, inner, outputs});
      probes_.back().seconds();
      times_.push_back(times * config.layers);
    }
    facts["tokens"] = static_cast<double>(rows * pool_.threads());
  }
  double seconds() override {
    double sum = 0.0;
    for (std::size_t i = 0; i < probes_.size(); ++i)
      for (int time = 0; time < times_[i]; ++time) sum += probes_[i].seconds();
    return sum;
  }

 private:
  ThreadPool pool_;
  std::vector<ProductProbe> probes_;
  std::vector<int> times_;
};

// decode depth=D steps=N batch=B recipe=TEXT page=P weights=TYPE threads=T model=FOLDER: N steps of one token
// for each of B sequences that hold D tokens, a multiple of P. Their keys and values are random numbers,
// which cost what a text's do. The sequences are forks, so that each turn starts at D.
class DecodeTurn : public Turn {
 public:
  explicit DecodeTurn(const TurnSettings& s)
      : loaded_(load(s)),
        depth_(s.number("depth")),
        steps_(s.number("steps")),
        recipe_(Recipe::parse(s.text_or("recipe", "dense(f16)"))),
        cache_(Compressor::cache_options(
                   recipe_, loaded_->decoder.cache_options(static_cast<int>(s.number_or("page", 64)),
                                                           DType::kF16, KeyBasis::kRotated)),
               loaded_->pool),
        compressor_(recipe_, cache_, loaded_->pool) {
    const int64_t batch = s.number_or("batch", 1);
    if (depth_ % cache_.options().page_tokens != 0) throw InputError("depth: expected full pages");
    for (int64_t i = 0; i < batch; ++i) {
      sequences_.push_back(cache_.add_sequence());
      fill(sequences_.back());
    }
    const ModelConfig& config = loaded_->decoder.config();
    tokens_ = some_tokens(batch, config.vocab);
    logits_.resize(static_cast<std::size_t>(batch * config.vocab));
    facts = {{"tokens", static_cast<double>(batch * steps_)},
             {"weight_bytes", static_cast<double>(steps_ * loaded_->decoder.bytes_per_token())},
             {"kv_bytes", static_cast<double>(steps_ * cache_.ledger().held())}};
    seconds();
  }

  double seconds() override {
    Batch batch;
    for (const SequenceId sequence : sequences_) {
      const SequenceId copy = cache_.fork_sequence(sequence);
      compressor_.after_fork(sequence, copy);
      batch.spans.push_back({copy, static_cast<int64_t>(batch.spans.size()), 1, depth_});
    }
    const auto count = static_cast<int64_t>(sequences_.size());
    std::vector<int64_t> rows(sequences_.size());
    std::iota(rows.begin(), rows.end(), 0);
    const MatView<float> logits(logits_.data(), count, loaded_->decoder.config().vocab);
    const double time = seconds_of([&] {
      for (int64_t step = 0; step < steps_; ++step) {
        loaded_->decoder.step(batch, tokens_, cache_, rows, logits);
        compressor_.after_step(batch, tokens_);
        for (BatchSpan& span : batch.spans) ++span.start;
      }
    });
    for (const BatchSpan& span : batch.spans) {
      compressor_.before_free(span.sequence);
      cache_.free_sequence(span.sequence);
    }
    return time;
  }

 private:
  void fill(SequenceId sequence) {
    constexpr int64_t kChunk = 512;
    const int64_t width = int64_t{cache_.options().kv_heads} * cache_.options().head_dim;
    std::mt19937 random(1);
    std::normal_distribution<float> normal;
    std::vector<float> numbers(static_cast<std::size_t>(kChunk * width));
    for (float& number : numbers) number = normal(random);
    for (int64_t start = 0; start < depth_;) {
      const int64_t tokens = std::min(kChunk, depth_ - start);
      const Batch step{{{sequence, 0, tokens, start}}};
      const MatView<const float> rows(numbers.data(), tokens, width);
      for (int layer = 0; layer < cache_.options().layers; ++layer) cache_.append(layer, step, rows, rows);
      cache_.end_step(step);
      compressor_.after_step(step, {});
      start += tokens;
    }
  }

  std::shared_ptr<Loaded> loaded_;
  int64_t depth_, steps_;
  Recipe recipe_;
  KvCache cache_;
  Compressor compressor_;
  std::vector<SequenceId> sequences_;
  std::vector<int32_t> tokens_;
  std::vector<float> logits_;
};

// logits tokens=FILE out=FILE weights=TYPE threads=T model=FOLDER: writes the logits after each of the ids
// (int32) in a file, [tokens, vocab] f32.
class LogitsTurn : public Turn {
 public:
  explicit LogitsTurn(const TurnSettings& s) : loaded_(load(s)), out_(s.text("out")) {
    std::ifstream file(s.text("tokens"), std::ios::binary);
    const std::vector<char> bytes{std::istreambuf_iterator<char>(file), {}};
    if (bytes.empty() || bytes.size() > (1 << 16))
      throw InputError("tokens: expected a file of up to 16,384 ids");
    tokens_.resize(bytes.size() / 4);
    std::memcpy(tokens_.data(), bytes.data(), tokens_.size() * 4);
  }
  double seconds() override {
    const auto count = static_cast<int64_t>(tokens_.size());
    const int64_t vocab = loaded_->decoder.config().vocab;
    KvCache cache(loaded_->decoder.cache_options(16, DType::kF32, KeyBasis::kRotated), loaded_->pool);
    std::vector<int64_t> rows(tokens_.size());
    std::iota(rows.begin(), rows.end(), 0);
    std::vector<float> logits(static_cast<std::size_t>(count * vocab));
    const Batch batch{{{cache.add_sequence(), 0, count, 0}}};
    const double time = seconds_of([&] {
      loaded_->decoder.step(batch, tokens_, cache, rows, MatView<float>(logits.data(), count, vocab));
    });
    std::ofstream file(out_, std::ios::binary);
    file.write(reinterpret_cast<const char*>(logits.data()),
               static_cast<std::streamsize>(logits.size() * sizeof(float)));
    if (!file.flush()) throw InputError(fmt::format("{}: cannot be written", out_));
    return time;
  }

 private:
  std::shared_ptr<Loaded> loaded_;
  std::string out_;
  std::vector<int32_t> tokens_;
};

}  // namespace

std::unique_ptr<Turn> make_decoder_turn(const std::string& operation, const TurnSettings& settings) {
  if (operation == "prefill") return std::make_unique<PrefillTurn>(settings);
  if (operation == "decode") return std::make_unique<DecodeTurn>(settings);
  if (operation == "layer_products") return std::make_unique<LayerProductsTurn>(settings);
  if (operation == "logits") return std::make_unique<LogitsTurn>(settings);
  return nullptr;
}

}  // namespace kva
