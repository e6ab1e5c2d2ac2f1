#include "reports/self_check.h"

#include <fmt/format.h>

#include <algorithm>
#include <cmath>
#include <random>

#include "kernels/convert.h"
#include "kernels/matmul.h"
#include "runtime/model/decoder.h"
#include "runtime/model/model_folder.h"
#include "runtime/model/sampler.h"

namespace kva {
namespace {

std::vector<float> random_values(std::size_t count, uint32_t seed) {
  std::mt19937 random(seed);
  std::vector<float> values(count);
  for (float& value : values) value = static_cast<float>(random()) * 0x1p-31f - 1.0f;
  return values;
}

// The largest error of x · wᵀ relative to the largest result, and the bound that the types imply: f32 sums of
// `depth` terms, and for rounded activations half a unit of bf16 in each factor.
SelfCheck check_product(ThreadPool& pool, DType type, int64_t rows) {
  constexpr int64_t kOutputs = 129, kDepth = 193;
  const std::vector<float> x = random_values(static_cast<std::size_t>(rows * kDepth), 1);
  const std::vector<float> w = random_values(static_cast<std::size_t>(kOutputs * kDepth), 2);
  std::vector<std::byte> stored(w.size() * static_cast<std::size_t>(dtype_bytes(type)));
  from_f32(w.data(), type, stored.data(), static_cast<int64_t>(w.size()));
  std::vector<float> exact_w(w.size());
  to_f32(stored.data(), type, exact_w.data(), static_cast<int64_t>(w.size()));

  Matmul matmul(pool);
  std::vector<float> out(static_cast<std::size_t>(rows * kOutputs));
  const LinearOp op{.weights = {stored.data(), type, kOutputs, kDepth},
                    .out = MatView<float>(out.data(), rows, kOutputs)};
  matmul.run(MatView<const float>(x.data(), rows, kDepth), {&op, 1});

  double error = 0.0, largest = 0.0;
  for (int64_t r = 0; r < rows; ++r) {
    for (int64_t c = 0; c < kOutputs; ++c) {
      double sum = 0.0;
      for (int64_t k = 0; k < kDepth; ++k)
        sum += static_cast<double>(x[static_cast<std::size_t>(r * kDepth + k)]) *
               exact_w[static_cast<std::size_t>(c * kDepth + k)];
      error = std::max(error, std::abs(sum - out[static_cast<std::size_t>(r * kOutputs + c)]));
      largest = std::max(largest, std::abs(sum));
    }
  }
  const bool rounded = rows > kFewRows && matmul.rounds_activations(type);
  const double bound = rounded ? 0x1p-8 : static_cast<double>(kDepth) * 0x1p-24;
  return {fmt::format("{} x{}", dtype_name(type), rows),
          fmt::format("product with {} weights, {} rows: error {:.1e} of the largest result (bound {:.1e})",
                      dtype_name(type), rows, error / largest, bound),
          error / largest <= bound};
}

struct TinyCache {
  static constexpr int64_t kTokens = 37, kHeads = 4, kKvHeads = 2, kHeadDim = 16;
  KvCache cache;
  std::vector<float> q = random_values(kTokens * kHeads * kHeadDim, 3);
  std::vector<float> k = random_values(kTokens * kKvHeads * kHeadDim, 4);
  std::vector<float> v = random_values(kTokens * kKvHeads * kHeadDim, 5);
  std::vector<float> out = std::vector<float>(kTokens * kHeads * kHeadDim);

  explicit TinyCache(ThreadPool& pool)
      : cache({.layers = 1,
               .kv_heads = kKvHeads,
               .heads = kHeads,
               .head_dim = kHeadDim,
               .page_tokens = 16,
               .k_codec = make_dense_codec(DType::kF32),
               .v_codec = make_dense_codec(DType::kF32),
               .scale = 0.25f},
              pool) {}

  void attend() {
    const Batch batch{{{cache.add_sequence(), 0, kTokens, 0}}};
    cache.append(0, batch, MatView<const float>(k.data(), kTokens, kKvHeads * kHeadDim),
                 MatView<const float>(v.data(), kTokens, kKvHeads * kHeadDim));
    cache.attend(0, batch, MatView<const float>(q.data(), kTokens, kHeads * kHeadDim),
                 MatView<float>(out.data(), kTokens, kHeads * kHeadDim));
    cache.end_step(batch);
  }

  // Attention of one query in f64.
  double expected(int64_t token, int64_t head, int64_t channel) const {
    const int64_t kv_head = head / (kHeads / kKvHeads);
    double sum = 0.0, weighted = 0.0;
    for (int64_t t = 0; t <= token; ++t) {
      double dot = 0.0;
      for (int64_t c = 0; c < kHeadDim; ++c)
        dot += static_cast<double>(q[static_cast<std::size_t>((token * kHeads + head) * kHeadDim + c)]) *
               k[static_cast<std::size_t>((t * kKvHeads + kv_head) * kHeadDim + c)];
      const double weight = std::exp(0.25 * dot);
      sum += weight;
      weighted += weight * v[static_cast<std::size_t>((t * kKvHeads + kv_head) * kHeadDim + channel)];
    }
    return weighted / sum;
  }
};

SelfCheck check_attention(ThreadPool& pool) {
  TinyCache tiny(pool);
  tiny.attend();
  double error = 0.0;
  for (int64_t token = 0; token < TinyCache::kTokens; ++token)
    for (int64_t head = 0; head < TinyCache::kHeads; ++head)
      for (int64_t c = 0; c < TinyCache::kHeadDim; ++c)
        error = std::max(error, std::abs(tiny.expected(token, head, c) -
                                         tiny.out[static_cast<std::size_t>(
                                             (token * TinyCache::kHeads + head) * TinyCache::kHeadDim + c)]));
  return {"attention", fmt::format("37 tokens over pages of 16: largest error {:.1e} (bound 1.0e-05)", error),
          error <= 1e-5};
}

SelfCheck check_ledger(ThreadPool& pool) {
  TinyCache tiny(pool);
  tiny.attend();
  const auto agrees = [&] {
    const ByteLedger ledger = tiny.cache.ledger();
    return ledger.held() + ledger.workspace == tiny.cache.backend().allocated_bytes();
  };
  const bool full = agrees();
  const ByteLedger ledger = tiny.cache.ledger();
  tiny.cache.free_sequence(0);
  return {"ledger",
          fmt::format("{} bytes held and {} of workspace, allocator says {}", ledger.held(), ledger.workspace,
                      full ? "the same" : "otherwise"),
          full && agrees()};
}

}  // namespace

std::vector<SelfCheck> run_self_checks(int threads) {
  ThreadPool pool(threads);
  std::vector<SelfCheck> checks;
  for (const DType type : {DType::kF32, DType::kF16, DType::kBF16})
    for (const int64_t rows : {int64_t{1}, int64_t{70}}) checks.push_back(check_product(pool, type, rows));
  checks.push_back(check_attention(pool));
  checks.push_back(check_ledger(pool));
  return checks;
}

SelfCheck check_model_decodes(const CaptureOptions& options, int threads) {
  ThreadPool pool(threads);
  const ModelFolder folder =
      find_model(options.model, {.cache_dir = options.cache_dir, .allow_fetch = !options.offline});
  const RunDevice device = open_device(options.device, [](const std::string&) {});
  Decoder decoder =
      Decoder::load(folder.path, {.weights = weight_form(options.weights), .device = device.ops}, pool);
  KvCache cache(decoder.cache_options(options.page_tokens, options.kv_dtype, options.key_basis), pool);
  const std::vector<int32_t> tokens(4, 1);
  const Batch batch{{{cache.add_sequence(), 0, 4, 0}}};
  std::vector<float> logits(static_cast<std::size_t>(decoder.config().vocab));
  const int64_t last = 3;
  decoder.step(batch, tokens, cache, {&last, 1}, MatView<float>(logits.data(), 1, decoder.config().vocab));
  const bool finite = std::all_of(logits.begin(), logits.end(), [](float x) { return std::isfinite(x); });
  return {"model",
          fmt::format("{}: {}, {:.1f} M parameters, {} logits {} on {}", folder.identity.name,
                      decoder.config().architecture, static_cast<double>(decoder.parameters()) / 1e6,
                      logits.size(), finite ? "finite" : "NOT FINITE", device.name()),
          finite};
}

}  // namespace kva
