// Decoding and prefill of a real model beside their limits. Each measurement alternates with a probe of its
// limit, so that both see the same machine; shares are ratios of medians.
//   decode   bytes of weights / time, beside the read bandwidth of as many threads
//   prefill  floating-point operations of the layers' products / time, beside one bare product of the type
// decoder_bench [--model=FOLDER] [Google Benchmark options]; the folder is by default where
// scripts/fetch_model.py puts smollm2-135m.
#include <benchmark/benchmark.h>

#include <algorithm>
#include <chrono>
#include <cstdlib>
#include <cstring>
#include <filesystem>
#include <numeric>
#include <string>
#include <vector>

#include "runtime/kv/kv_cache.h"
#include "runtime/model/decoder.h"

namespace kva {
namespace {

std::string model_folder;

using Clock = std::chrono::steady_clock;

template <class Body>
double seconds_of(const Body& body) {
  const auto start = Clock::now();
  body();
  return std::chrono::duration<double>(Clock::now() - start).count();
}

double median(std::vector<double> values) {
  std::nth_element(values.begin(), values.begin() + static_cast<std::ptrdiff_t>(values.size() / 2),
                   values.end());
  return values[values.size() / 2];
}

// Reads as many bytes as a decoding step does.
class ReadProbe {
 public:
  explicit ReadProbe(int64_t bytes) : words_(static_cast<std::size_t>(bytes / 8)) {
    std::iota(words_.begin(), words_.end(), uint64_t{0});
  }
  double seconds(ThreadPool& pool) {
    constexpr std::size_t kBlock = 1 << 17;
    return seconds_of([&] {
      pool.parallel_for(static_cast<int64_t>(words_.size() / kBlock), [&](int64_t block, int) {
        const uint64_t* at = words_.data() + static_cast<std::size_t>(block) * kBlock;
        uint64_t sums[32] = {};
        for (std::size_t i = 0; i < kBlock; i += 32)
          for (std::size_t lane = 0; lane < 32; ++lane) sums[lane] += at[i + lane];
        benchmark::DoNotOptimize(sums);
      });
    });
  }
  double bytes() const { return static_cast<double>(words_.size()) * 8; }

 private:
  std::vector<uint64_t> words_;
};

// One product of many rows, in cache: 512 x 576 by 576 x 1536.
class ProductProbe {
 public:
  ProductProbe(DType type, ThreadPool& pool)
      : matmul_(pool), weights_(1536 * 576 * 4, 0x3c), x_(512 * 576, 0.5f), out_(512 * 1536) {
    op_ = {{weights_.data(), type, 1536, 576}, nullptr, MatView<float>(out_.data(), 512, 1536)};
  }
  double seconds() {
    return seconds_of([&] { matmul_.run(MatView<const float>(x_.data(), 512, 576), std::span(&op_, 1)); });
  }
  static constexpr double kFlops = 2.0 * 512 * 576 * 1536;

 private:
  Matmul matmul_;
  std::vector<unsigned char> weights_;
  std::vector<float> x_, out_;
  LinearOp op_;
};

// Operations of one token in the layers' products.
double layer_flops(const ModelConfig& c) {
  const double width = static_cast<double>(c.heads + 2 * c.kv_heads) * c.head_dim;
  const double attention =
      static_cast<double>(c.hidden) * (width + static_cast<double>(c.heads) * c.head_dim);
  const double ffn = static_cast<double>(c.hidden) * static_cast<double>(c.ffn) * (c.gated_ffn ? 3 : 2);
  return 2.0 * c.layers * (attention + ffn);
}

bool missing(benchmark::State& state) {
  if (std::filesystem::exists(model_folder + "/config.json")) return false;
  state.SkipWithError(("no model in " + model_folder).c_str());
  return true;
}

void decode(benchmark::State& state, DType type) {
  if (missing(state)) return;
  ThreadPool pool(static_cast<int>(state.range(0)));
  const int64_t batch_size = state.range(1);
  Decoder decoder = Decoder::load(model_folder, {.weights = type}, pool);
  KvCache cache(decoder.cache_options(16, DType::kF16, KeyBasis::kRotated), pool);
  Batch batch;
  for (int64_t i = 0; i < batch_size; ++i) batch.spans.push_back({cache.add_sequence(), i, 1, 0});
  std::vector<int32_t> tokens(static_cast<std::size_t>(batch_size), 100);
  std::vector<int64_t> rows(tokens.size());
  std::iota(rows.begin(), rows.end(), 0);
  std::vector<float> logits(tokens.size() * static_cast<std::size_t>(decoder.config().vocab));
  ReadProbe probe(decoder.bytes_per_token());
  std::vector<double> steps, probes;
  const auto step = [&] {
    decoder.step(batch, tokens, cache, rows,
                 MatView<float>(logits.data(), batch_size, decoder.config().vocab));
    for (BatchSpan& span : batch.spans) ++span.start;
  };
  step();
  for (auto _ : state) {
    steps.push_back(seconds_of(step));
    probes.push_back(probe.seconds(pool));
    state.SetIterationTime(steps.back());
  }
  const double rate = static_cast<double>(decoder.bytes_per_token()) / median(steps);
  const double limit = probe.bytes() / median(probes);
  state.counters["tokens/s"] = static_cast<double>(batch_size) / median(steps);
  state.counters["GB/s"] = rate / 1e9;
  state.counters["read_GB/s"] = limit / 1e9;
  state.counters["share"] = rate / limit;
}

void prefill(benchmark::State& state, DType type) {
  if (missing(state)) return;
  ThreadPool pool(static_cast<int>(state.range(0)));
  const int64_t chunk = state.range(1);
  Decoder decoder = Decoder::load(model_folder, {.weights = type}, pool);
  KvCache cache(decoder.cache_options(16, DType::kF16, KeyBasis::kRotated), pool);
  std::vector<int32_t> tokens(static_cast<std::size_t>(chunk));
  std::iota(tokens.begin(), tokens.end(), 100);
  ProductProbe probe(type, pool);
  const auto step = [&] {
    const SequenceId sequence = cache.add_sequence();
    decoder.step(Batch{{{sequence, 0, chunk, 0}}}, tokens, cache, {}, MatView<float>());
    cache.free_sequence(sequence);
  };
  step();
  probe.seconds();
  std::vector<double> steps, probes;
  for (auto _ : state) {
    steps.push_back(seconds_of(step));
    for (int i = 0; i < 5; ++i) probes.push_back(probe.seconds());
    state.SetIterationTime(steps.back());
  }
  const double rate = layer_flops(decoder.config()) * static_cast<double>(chunk) / median(steps);
  const double limit = ProductProbe::kFlops / median(probes);
  state.counters["tokens/s"] = static_cast<double>(chunk) / median(steps);
  state.counters["GFLOP/s"] = rate / 1e9;
  state.counters["product_GFLOP/s"] = limit / 1e9;
  state.counters["share"] = rate / limit;
}

void register_all() {
  for (const DType type : {DType::kF32, DType::kF16, DType::kBF16}) {
    const std::string name(dtype_name(type));
    benchmark::RegisterBenchmark(("decode/" + name).c_str(), decode, type)
        ->ArgNames({"threads", "batch"})
        ->ArgsProduct({{1, 2}, {1}})
        ->Args({2, 8})
        ->UseManualTime()
        ->Unit(benchmark::kMillisecond);
    benchmark::RegisterBenchmark(("prefill/" + name).c_str(), prefill, type)
        ->ArgNames({"threads", "chunk"})
        ->Args({1, 512})
        ->Args({2, 128})
        ->Args({2, 256})
        ->Args({2, 512})
        ->Args({2, 1024})
        ->UseManualTime()
        ->Unit(benchmark::kMillisecond);
  }
}

}  // namespace
}  // namespace kva

int main(int argc, char** argv) {
  const char* home = std::getenv("HOME");
  kva::model_folder = std::string(home ? home : ".") + "/.cache/kvanalyze/models/smollm2-135m";
  constexpr const char* kModel = "--model=";
  if (argc > 1 && std::strncmp(argv[1], kModel, std::strlen(kModel)) == 0) {
    kva::model_folder = argv[1] + std::strlen(kModel);
    std::swap(argv[0], argv[1]);
    ++argv;
    --argc;
  }
  kva::register_all();
  benchmark::Initialize(&argc, argv);
  if (benchmark::ReportUnrecognizedArguments(argc, argv)) return 1;
  benchmark::RunSpecifiedBenchmarks();
  return 0;
}
