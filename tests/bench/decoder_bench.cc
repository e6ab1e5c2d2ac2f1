// Decoding and prefill of a real model beside their limits, probed in turns (probes.h).
//   decode   GB of weights / time, beside the read bandwidth of as many threads
//   prefill  GFLOP of the layers' products / time, beside the product peak of the type on as many threads
// decoder_bench [--model=FOLDER] [Google Benchmark options]; the folder is by default where
// scripts/fetch_model.py puts smollm2-135m.
#include <benchmark/benchmark.h>

#include <cstdlib>
#include <cstring>
#include <filesystem>
#include <numeric>
#include <string>
#include <vector>

#include "runtime/kv/kv_cache.h"
#include "runtime/model/decoder.h"
#include "tests/bench/probes.h"

namespace kva {
namespace {

std::string model_folder;

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
  Turns turns;
  const auto step = [&] {
    decoder.step(batch, tokens, cache, rows,
                 MatView<float>(logits.data(), batch_size, decoder.config().vocab));
    for (BatchSpan& span : batch.spans) ++span.start;
  };
  step();
  for (auto _ : state) {
    turns.own.push_back(seconds_of(step));
    turns.probe.push_back(probe.seconds(pool));
    state.SetIterationTime(turns.own.back());
  }
  turns.report(state, static_cast<double>(decoder.bytes_per_token()), probe.bytes(), kGiga);
  state.counters["tokens/s"] = static_cast<double>(batch_size) / median(turns.own);
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
  Turns turns;
  for (auto _ : state) {
    turns.own.push_back(seconds_of(step));
    turns.probe.push_back(probe.seconds());
    state.SetIterationTime(turns.own.back());
  }
  turns.report(state, layer_flops(decoder.config()) * static_cast<double>(chunk), probe.flops(), kGiga);
  state.counters["tokens/s"] = static_cast<double>(chunk) / median(turns.own);
}

void register_all() {
  const std::vector<int64_t> counts = thread_counts();
  for (const DType type : {DType::kF32, DType::kF16, DType::kBF16}) {
    const std::string name(dtype_name(type));
    benchmark::RegisterBenchmark(("decode/" + name).c_str(), decode, type)
        ->ArgNames({"threads", "batch"})
        ->ArgsProduct({counts, {1, 8}})
        ->UseManualTime()
        ->Unit(benchmark::kMillisecond);
    benchmark::RegisterBenchmark(("prefill/" + name).c_str(), prefill, type)
        ->ArgNames({"threads", "chunk"})
        ->ArgsProduct({counts, {128, 256, 512, 1024}})
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
