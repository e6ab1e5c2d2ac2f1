// What recipes cost attention and codecs, at SmolLM2-135M's shape.
//
// decode: attention of one token over a cache under a recipe, layer by layer in turns with the same over
// dense f16 pages (turns so short that other programs seldom fall into one), and a bare read of the f16
// pages' bytes. The layers of both caches are more than the processor's caches hold. value is the recipe's
// GB/s counted in the f16 bytes that its pages stand for, limit the dense pages', share how many times as
// fast. stored: GB/s of the bytes that are really there. bits: of a number, tables included. read: GB/s of
// the bare read.
//
// encode, read_back: page sides of 64 tokens, f32 on one side, the payload on the other, one thread; GB/s of
// bytes read and written, some pages at a time in turns with a copy of as many bytes from and to memory of
// the same size.
#include <benchmark/benchmark.h>

#include <cstring>
#include <map>
#include <memory>
#include <string>
#include <utility>

#include "compressors/codecs/fp8_codec.h"
#include "compressors/codecs/quant_codec.h"
#include "compressors/compressor.h"
#include "tests/bench/filled_cache.h"
#include "tests/bench/probes.h"
#include "tests/compressors/random_sample.h"

namespace kva {
namespace {

constexpr int kLayers = 30;
constexpr int64_t kNumbers =
    int64_t{FilledCache::kKvHeads} * FilledCache::kHeadDim * 2;  // of a token in a layer

// A filled cache under a recipe, one token of a new step in it.
struct Compressed {
  Compressed(const std::string& text, int64_t tokens, int page_tokens, ThreadPool& pool)
      : recipe(Recipe::parse(text)),
        filled(Compressor::cache_options(
                   recipe, FilledCache::options(DType::kF16, kLayers, page_tokens, KeyBasis::kRotated)),
               pool),
        compressor(recipe, filled.cache, pool) {
    if (compressor.needs_sample())
      compressor.fit(normal_sample({.layers = kLayers,
                                    .kv_heads = FilledCache::kKvHeads,
                                    .head_dim = FilledCache::kHeadDim,
                                    .page_tokens = page_tokens},
                                   4, 1));
    filled.fill(tokens, [&](const Batch& step) { compressor.after_step(step, {}); });
    batch = filled.append(1);
    filled.attend(batch);
  }

  Recipe recipe;
  FilledCache filled;
  Compressor compressor;
  Batch batch;
};

void decode(benchmark::State& state, const std::string& text) {
  const int64_t tokens = state.range(0);
  const int page_tokens = static_cast<int>(state.range(1));
  ThreadPool pool(static_cast<int>(state.range(2)));
  Compressed own(text, tokens, page_tokens, pool), dense("dense(f16)", tokens, page_tokens, pool);
  const int64_t dense_bytes = kLayers * tokens * kNumbers * 2;
  ReadProbe probe(dense_bytes);
  Turns turns;
  std::vector<double> reads;
  for (auto _ : state) {
    double seconds = 0.0;
    for (int layer = 0; layer < kLayers; ++layer) {
      turns.own.push_back(seconds_of([&] { own.filled.attend(layer, own.batch); }));
      turns.probe.push_back(seconds_of([&] { dense.filled.attend(layer, dense.batch); }));
      seconds += turns.own.back();
    }
    reads.push_back(probe.seconds(pool));
    state.SetIterationTime(seconds);
  }
  const auto bytes = static_cast<double>(dense_bytes);
  turns.report(state, bytes / kLayers, bytes / kLayers, kGiga);
  const auto held = static_cast<double>(own.filled.cache.ledger().held());
  state.counters["stored"] = held / kLayers / median(turns.own) / kGiga;
  state.counters["bits"] = 16 * held / bytes;
  state.counters["read"] = probe.bytes() / median(reads) / kGiga;
}

constexpr int64_t kPageTokens = 64;
constexpr int64_t kPages = 1024;
constexpr int64_t kTurnPages = 64;

struct PageSides {
  explicit PageSides(std::shared_ptr<const SideCodec> codec_)
      : codec(std::move(codec_)),
        bytes(codec->bytes(kPageTokens, FilledCache::kHeadDim)),
        numbers(normal_numbers(kPages * kPageTokens * FilledCache::kHeadDim, 1)),
        payloads(static_cast<std::size_t>(kPages * bytes)),
        scratch(static_cast<std::size_t>(codec->decode_scratch(kPageTokens, FilledCache::kHeadDim))) {
    encode(0, kPages);
  }

  MatView<float> page(int64_t i) {
    return MatView<float>(numbers.data() + i * kPageTokens * FilledCache::kHeadDim, kPageTokens,
                          FilledCache::kHeadDim);
  }
  void encode(int64_t first, int64_t last) {
    for (int64_t i = first; i < last; ++i) codec->encode(page(i), {}, payloads.data() + i * bytes);
  }
  void read_back(int64_t first, int64_t last) {
    for (int64_t i = first; i < last; ++i)
      codec->decode({.payload = payloads.data() + i * bytes}, scratch.data(), page(i));
  }
  // Of a page, read and written.
  int64_t traffic() const { return bytes + kPageTokens * FilledCache::kHeadDim * 4; }

  std::shared_ptr<const SideCodec> codec;
  int64_t bytes;
  std::vector<float> numbers;
  std::vector<std::byte> payloads;
  std::vector<float> scratch;
};

void convert(benchmark::State& state, const std::shared_ptr<const SideCodec>& codec,
             void (PageSides::*body)(int64_t first, int64_t last)) {
  PageSides sides(codec);
  const auto half = static_cast<std::size_t>(kTurnPages * sides.traffic() / 2);
  std::vector<std::byte> from(half * (kPages / kTurnPages), std::byte{1}), to(from.size(), std::byte{2});
  Turns turns;
  for (auto _ : state) {
    double seconds = 0.0;
    for (int64_t turn = 0; turn < kPages / kTurnPages; ++turn) {
      const int64_t first = turn * kTurnPages;
      const std::size_t at = static_cast<std::size_t>(turn) * half;
      turns.own.push_back(seconds_of([&] { (sides.*body)(first, first + kTurnPages); }));
      turns.probe.push_back(seconds_of([&] { std::memcpy(to.data() + at, from.data() + at, half); }));
      seconds += turns.own.back();
    }
    benchmark::DoNotOptimize(to.data());
    state.SetIterationTime(seconds);
  }
  const auto traffic = static_cast<double>(kTurnPages * sides.traffic());
  turns.report(state, traffic, traffic, kGiga);
}

const std::pair<const char*, const char*> kRecipes[] = {
    {"dense(f16)", "dense(f16)"},
    {"quant(8)", "quant(bits=8)"},
    {"quant(4)", "quant(bits=4)"},
    {"quant(3)", "quant(bits=3)"},
    {"quant(2)", "quant(bits=2)"},
    {"quant(4,group=32)", "quant(bits=4,axes=group,group=32)"},
    {"kivi(4)", "quant(k=4,v=4,axes=kivi,group=page)"},
    {"kivi(4)+outliers", "quant(k=4,v=4,axes=kivi,group=page,outliers=0.01)"},
    {"quant(4)+rotate", "quant(bits=4,rotate=true)"},
    {"quant(4)+norm", "quant(bits=4,norm_correct=true)"},
    {"nuq(4)", "nuq(bits=4)"},
    {"turboquant(4)", "turboquant(bits=4)"},
    {"fp8", "dense(fp8)"},
    {"lowrank(0.5)", "lowrank(rank=0.5)"},
    {"lowrank(0.5)|quant(4)", "lowrank(rank=0.5) | quant(bits=4)"},
    {"pq(8)", "pq(m=8)"},
};

void register_all() {
  for (const auto& [name, text] : kRecipes) {
    auto* bench =
        benchmark::RegisterBenchmark((std::string("decode/") + name).c_str(), decode, std::string(text))
            ->ArgNames({"tokens", "page", "threads"})
            ->UseManualTime()
            ->Unit(benchmark::kMillisecond);
    for (const int64_t threads : thread_counts())
      for (const auto& [tokens, page] : {std::pair<int64_t, int64_t>{2048, 64}, {8192, 16}, {8192, 64}})
        bench->Args({tokens, page, threads});
  }
  const std::pair<const char*, std::shared_ptr<const SideCodec>> codecs[] = {
      {"dense(f16)", make_dense_codec(DType::kF16)},
      {"quant(8)", make_quant_codec({.bits = 8})},
      {"quant(4)", make_quant_codec({.bits = 4})},
      {"quant(4,channel)", make_quant_codec({.bits = 4, .axis = ScaleAxis::kChannel})},
      {"quant(4,channel)+outliers",
       make_quant_codec({.bits = 4, .axis = ScaleAxis::kChannel, .outliers = 0.01})},
      {"quant(2)", make_quant_codec({.bits = 2})},
      {"fp8", make_fp8_codec(Fp8::kE4M3)},
  };
  for (const auto& [name, codec] : codecs)
    for (const auto& [what, body] :
         {std::pair{"encode/", &PageSides::encode}, std::pair{"read_back/", &PageSides::read_back}})
      benchmark::RegisterBenchmark((what + std::string(name)).c_str(), convert, codec, body)
          ->UseManualTime()
          ->Unit(benchmark::kMillisecond);
}

}  // namespace
}  // namespace kva

int main(int argc, char** argv) {
  kva::register_all();
  benchmark::Initialize(&argc, argv);
  if (benchmark::ReportUnrecognizedArguments(argc, argv)) return 1;
  benchmark::RunSpecifiedBenchmarks();
  return 0;
}
