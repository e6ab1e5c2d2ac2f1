#include "runtime/model/sampler.h"

#include <fmt/format.h>

#include <algorithm>
#include <cmath>
#include <numeric>

#include "kernels/check.h"
#include "kernels/sampling_lanes.h"
#include "runtime/error.h"

namespace kva {
void fail_at_logit(int64_t token) {
  throw InputError(fmt::format("the model's logit of token {} is not finite: its weights overflow", token));
}

int32_t most_likely(std::span<const float> logits) {
  KVA_CHECK(!logits.empty(), "no logits");
  std::size_t best = 0;
  for (std::size_t i = 0; i < logits.size(); ++i) {
    if (std::isnan(logits[i]) || logits[i] == INFINITY) fail_at_logit(static_cast<int64_t>(i));
    if (logits[i] > logits[best]) best = i;
  }
  return static_cast<int32_t>(best);
}

Sampler::Sampler(const SamplerOptions& options) : options_(options), random_(options.seed) {
  if (!(options.temperature >= 0.0 && options.temperature <= 1e6))
    throw InputError(
        fmt::format("temperature: expected a number from 0 to 1e6, found {}", options.temperature));
  if (options.top_k < 0) throw InputError(fmt::format("top-k: expected 0 or more, found {}", options.top_k));
  if (!(options.top_p > 0.0 && options.top_p <= 1.0))
    throw InputError(fmt::format("top-p: expected a number over 0 and up to 1, found {}", options.top_p));
}

TokenChoice Sampler::next() {
  return {options_.temperature, options_.top_k, options_.top_p,
          options_.temperature > 0.0 ? random_.uniform() : 0.0};
}

int32_t Sampler::pick(std::span<const float> logits) { return chosen(logits, next()); }

int32_t Sampler::chosen(std::span<const float> logits, const TokenChoice& choice) {
  const int32_t best = most_likely(logits);
  if (choice.temperature == 0.0) return best;
  const auto vocabulary = static_cast<int32_t>(logits.size());
  const SampleJob job{.logits = logits.data(),
                      .order = ordered(logits, choice),
                      .vocabulary = vocabulary,
                      .top_k = static_cast<int32_t>(std::min<int64_t>(choice.top_k, vocabulary)),
                      .top_p = choice.top_p,
                      .temperature = choice.temperature,
                      .uniform = choice.uniform};
  const Likeliest top{logits[static_cast<std::size_t>(best)], best};
  SampleState state;
  for (int32_t lane = 0; lane < 32; ++lane) sample_sum(job, top, lane, state);
  sample_total(job, 0, state);
  for (int32_t lane = 0; lane < 32; ++lane) sample_cut(job, top, lane, state);
  for (int32_t lane = 0; lane < 32; ++lane) sample_pick(job, top, lane, state);
  return sampled(job, state);
}

// The tokens that may be chosen, most likely first; null: all of them, as they are.
const int32_t* Sampler::ordered(std::span<const float> logits, const TokenChoice& choice) {
  const auto all = std::ssize(logits);
  const int64_t count = choice.top_k > 0 ? std::min(all, choice.top_k) : all;
  if (count == all && choice.top_p >= 1.0) return nullptr;
  order_.resize(logits.size());
  std::iota(order_.begin(), order_.end(), 0);
  const auto likelier = [&](int32_t a, int32_t b) {
    const float x = logits[static_cast<std::size_t>(a)], y = logits[static_cast<std::size_t>(b)];
    return x != y ? x > y : a < b;
  };
  std::partial_sort(order_.begin(), order_.begin() + count, order_.end(), likelier);
  return order_.data();
}

}  // namespace kva
