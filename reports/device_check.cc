#include "reports/device_check.h"

#include <fmt/format.h>

#include <algorithm>
#include <cmath>
#include <exception>
#include <string>

#include "compressors/compressor.h"
#include "kernels/convert.h"
#include "kernels/parallel.h"
#include "kernels/random.h"
#include "runtime/kv/device_array.h"

namespace kva {
namespace {

constexpr std::string_view kPurpose = "checking the device";

std::vector<float> random_values(int64_t count, uint64_t seed) {
  SplitMix64 random(seed);
  std::vector<float> values(static_cast<std::size_t>(count));
  for (float& value : values) value = static_cast<float>(2.0 * random.uniform() - 1.0);
  return values;
}

// The largest difference, as a share of the largest number expected; NaN where something is not a number.
double difference(const std::vector<float>& found, const std::vector<double>& expected) {
  double most = 0.0, largest = 0.0;
  for (std::size_t i = 0; i < found.size(); ++i) {
    const double off = std::abs(double{found[i]} - expected[i]);
    if (!(off <= most)) most = off;
    if (std::isnan(off)) return off;
    largest = std::max(largest, std::abs(expected[i]));
  }
  return most / largest;
}

SelfCheck compared(const std::string& subject, const std::vector<float>& found,
                   const std::vector<double>& expected, double bound) {
  const double off = difference(found, expected);
  return {subject, fmt::format("{}: off by {:.1e} of the largest result (bound {:.1e})", subject, off, bound),
          off <= bound};
}

// Sums of f32, as they are off by their order.
SelfCheck check_product(Backend& backend, DType type, int64_t rows) {
  constexpr int64_t kOutputs = 128, kDepth = 192;
  std::vector<std::byte> stored[2];
  std::vector<float> rounded[2];
  for (const int i : {0, 1}) {
    const std::vector<float> values =
        random_values((i == 0 ? rows : kOutputs) * kDepth, 1 + static_cast<uint64_t>(i));
    stored[i].resize(values.size() * static_cast<std::size_t>(dtype_bytes(type)));
    rounded[i].resize(values.size());
    from_f32(values.data(), type, stored[i].data(), std::ssize(values));
    to_f32(stored[i].data(), type, rounded[i].data(), std::ssize(values));
  }
  DeviceArray<std::byte> x(backend, kPurpose), weights(backend, kPurpose);
  DeviceArray<float> out(backend, kPurpose);
  x.upload(stored[0]);
  weights.upload(stored[1]);
  out.reserve(rows * kOutputs);
  backend.device()->multiply({.x = {x.data(), type, rows, kDepth, kDepth},
                              .weights = {weights.data(), type, kOutputs, kDepth},
                              .out = {out.data(), DType::kF32, rows, kOutputs, kOutputs}});
  std::vector<float> found(static_cast<std::size_t>(rows * kOutputs));
  backend.download(found.data(), out.data(), std::ssize(found) * int64_t{sizeof(float)});
  std::vector<double> expected;
  for (int64_t r = 0; r < rows; ++r)
    for (int64_t o = 0; o < kOutputs; ++o) {
      double sum = 0.0;
      for (int64_t k = 0; k < kDepth; ++k)
        sum += double{rounded[0][static_cast<std::size_t>(r * kDepth + k)]} *
               double{rounded[1][static_cast<std::size_t>(o * kDepth + k)]};
      expected.push_back(sum);
    }
  return compared(fmt::format("products with {} weights, {} rows", dtype_name(type), rows), found, expected,
                  static_cast<double>(kDepth) * 0x1p-24);
}

// A cache of one layer under a recipe, on a device or on the CPU.
class CheckedCache {
 public:
  CheckedCache(const Recipe& recipe, ThreadPool& pool, const std::shared_ptr<Backend>& backend)
      : cache_(options(recipe, backend), pool),
        compressor_(recipe, cache_, pool),
        sequence_(cache_.add_sequence()) {}

  // What every token's queries attend to: a prompt, then token by token, which a device records and replays.
  std::vector<float> attend() {
    std::vector<float> results;
    step(kPrompt, results);
    while (cache_.tokens(sequence_) < kTokens) step(1, results);
    return results;
  }

 private:
  static constexpr int64_t kTokens = 75, kPrompt = 70, kHeads = 4, kKvHeads = 2, kHeadDim = 64;

  static KvCacheOptions options(const Recipe& recipe, const std::shared_ptr<Backend>& backend) {
    KvCacheOptions options = Compressor::cache_options(recipe, {.layers = 1,
                                                                .kv_heads = kKvHeads,
                                                                .heads = kHeads,
                                                                .head_dim = kHeadDim,
                                                                .page_tokens = 16,
                                                                .k_codec = make_dense_codec(DType::kF16),
                                                                .v_codec = make_dense_codec(DType::kF16),
                                                                .scale = 0.5f});
    if (backend) options.backend = backend;
    return options;
  }

  // Rows of a step, where the cache reads them.
  struct Rows {
    Rows(Backend& backend, const std::vector<float>& all, int64_t cols_, int64_t first, int64_t count)
        : cols(cols_),
          here(all.begin() + first * cols_, all.begin() + (first + count) * cols_),
          there(backend, kPurpose) {
      if (backend.device()) there.upload(here);
    }
    MatView<float> view() {
      float* data = there.data() ? there.data() : here.data();
      return {data, std::ssize(here) / cols, cols};
    }
    int64_t cols;
    std::vector<float> here;
    DeviceArray<float> there;
  };

  void step(int64_t tokens, std::vector<float>& results) {
    const int64_t first = cache_.tokens(sequence_);
    const Batch batch{{{sequence_, 0, tokens, first}}};
    Backend& memory = *cache_.options().backend;
    DeviceOps* device = memory.device();
    Rows q(memory, queries_, kHeads * kHeadDim, first, tokens),
        k(memory, keys_, kKvHeads * kHeadDim, first, tokens),
        v(memory, values_, kKvHeads * kHeadDim, first, tokens);
    Rows out(memory, std::vector<float>(queries_.size()), kHeads * kHeadDim, first, tokens);
    cache_.begin_step(batch);
    if (device && tokens == 1) device->begin_recording();
    cache_.append(0, batch, k.view(), v.view());
    cache_.attend(0, batch, q.view(), out.view());
    if (device) device->end_recording();
    if (device)
      memory.download(out.here.data(), out.there.data(), std::ssize(out.here) * int64_t{sizeof(float)});
    cache_.end_step(batch);
    compressor_.after_step(batch, {});
    results.insert(results.end(), out.here.begin(), out.here.end());
  }

  std::vector<float> queries_ = random_values(kTokens * kHeads * kHeadDim, 3);
  std::vector<float> keys_ = random_values(kTokens * kKvHeads * kHeadDim, 4);
  std::vector<float> values_ = random_values(kTokens * kKvHeads * kHeadDim, 5);
  KvCache cache_;
  Compressor compressor_;
  SequenceId sequence_;
};

// A device rounds what it reads in tiles to f16, and a code may be its neighbour. What is asked for here is
// whether it reads the right numbers.
SelfCheck check_attention(const std::shared_ptr<Backend>& backend, const std::string& text,
                          ThreadPool& pool) {
  const Recipe recipe = Recipe::parse(text);
  const std::vector<float> expected = CheckedCache(recipe, pool, nullptr).attend();
  const std::vector<float> found = CheckedCache(recipe, pool, backend).attend();
  return compared(fmt::format("attention, {}", text), found, {expected.begin(), expected.end()}, 0x1p-6);
}

}  // namespace

std::vector<SelfCheck> check_device(const std::shared_ptr<DeviceOps>& device) {
  const std::shared_ptr<Backend> backend = make_device_backend(device);
  ThreadPool pool(1);
  std::vector<SelfCheck> checks;
  const auto add = [&](const std::string& subject, const auto& check) {
    try {
      checks.push_back(check());
    } catch (const std::exception& error) {
      checks.push_back({"GPU", fmt::format("{}: {}", subject, error.what()), false});
    }
  };
  for (const DType type : {DType::kF32, DType::kF16, DType::kBF16})
    for (const int64_t rows : {int64_t{1}, int64_t{33}})
      add("products", [&] { return check_product(*backend, type, rows); });
  for (const char* recipe : {"dense(f16)", "dense(bf16)", "dense(fp8)", "quant(bits=8)",
                             "quant(k=4,v=4,axes=kivi,group=page,outliers=0.01)", "quant(k=3,v=2)"})
    add("attention", [&] { return check_attention(backend, recipe, pool); });
  return checks;
}

}  // namespace kva
