#include "runtime/model/sampler.h"

#include <fmt/format.h>

#include <algorithm>
#include <cmath>

#include "kernels/check.h"
#include "runtime/error.h"

namespace kva {
namespace {

using Candidate = std::pair<float, int32_t>;

bool likelier(const Candidate& a, const Candidate& b) {
  return a.first != b.first ? a.first > b.first : a.second < b.second;
}

}  // namespace

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
  candidates_.clear();
  for (std::size_t i = 0; i < logits.size(); ++i)
    candidates_.emplace_back(logits[i], static_cast<int32_t>(i));
  const std::size_t count =
      choice.top_k > 0 ? std::min<std::size_t>(candidates_.size(), static_cast<std::size_t>(choice.top_k))
                       : candidates_.size();
  // Sorting everything is only needed where top-p must see the order.
  if (count < candidates_.size())
    std::partial_sort(candidates_.begin(), candidates_.begin() + static_cast<std::ptrdiff_t>(count),
                      candidates_.end(), likelier);
  else if (choice.top_p < 1.0)
    std::sort(candidates_.begin(), candidates_.end(), likelier);
  const double top = logits[static_cast<std::size_t>(best)];
  weights_.clear();
  double total = 0.0;
  for (std::size_t i = 0; i < count; ++i) {
    weights_.push_back(std::exp((candidates_[i].first - top) / choice.temperature));
    total += weights_.back();
  }
  double kept = total;
  if (choice.top_p < 1.0) {
    kept = 0.0;
    std::size_t size = 0;
    while (size < count && kept < choice.top_p * total) kept += weights_[size++];
    weights_.resize(size);
  }
  double rest = choice.uniform * kept;
  for (std::size_t i = 0; i < weights_.size(); ++i) {
    rest -= weights_[i];
    if (rest < 0.0) return candidates_[i].second;
  }
  return candidates_[weights_.size() - 1].second;  // rounding may leave a rest
}

}  // namespace kva
