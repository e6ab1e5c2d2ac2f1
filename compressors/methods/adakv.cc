// adakv: snapkv with a layer's room shared among its KV heads as their scores ask (Ada-KV, arXiv 2407.11550):
// the best tokens of all heads together are counted by head, and a share `floor` of the even split is
// everyone's. Heads of a layer then hold different numbers of tokens, and the cache really shrinks by head.

#include <algorithm>
#include <cmath>
#include <utility>

#include "compressors/eviction_step.h"
#include "compressors/policy_parameters.h"
#include "compressors/prompt_policy.h"

namespace kva {
namespace {

class AdaKvPolicy : public PromptPolicy {
 public:
  explicit AdaKvPolicy(const Arguments& arguments)
      : PromptPolicy(arguments), floor_(arguments.number("floor")) {}

 protected:
  std::vector<int64_t> budgets(std::span<const TokenTable> layer, std::span<const std::vector<double>> scores,
                               int64_t window) const override {
    int64_t room = 0;
    std::vector<std::pair<double, std::size_t>> all;  // score and head
    for (std::size_t h = 0; h < layer.size(); ++h) {
      room += std::max<int64_t>(0, capacity(layer[h]) - window);
      for (std::size_t t = 0; t < scores[h].size(); ++t)
        if (!is_protected(layer[h], static_cast<int64_t>(t), 0, window)) all.emplace_back(scores[h][t], h);
    }
    const auto best = std::min(static_cast<std::size_t>(room), all.size());
    std::stable_sort(all.begin(), all.end(), [](const auto& a, const auto& b) { return a.first > b.first; });
    std::vector<double> counts(layer.size(), 0.0);
    for (std::size_t i = 0; i < best; ++i) counts[all[i].second] += 1.0;
    std::vector<int64_t> result;
    result.reserve(counts.size());
    const double even = static_cast<double>(room) / static_cast<double>(layer.size());
    for (const double count : counts)
      result.push_back(window + std::llround((1.0 - floor_) * count + floor_ * even));
    return result;
  }

 private:
  double floor_;
};

}  // namespace

MethodInfo adakv_method() {
  std::vector<ParameterInfo> parameters = prompt_parameters();
  parameters.push_back(
      share_parameter("floor", "0.2", "share of the even split that every head gets whatever its scores"));
  return {.name = "adakv",
          .meaning = "As snapkv, with a layer's room shared among its heads as their attention asks",
          .kind = MethodKind::kStructure,
          .papers = {{"Ada-KV: Optimizing KV Cache Eviction by Adaptive Budget Allocation for Efficient LLM "
                      "Inference",
                      "2407.11550"}},
          .parameters = std::move(parameters),
          .check = check_eviction,
          .make = make_eviction<AdaKvPolicy>};
}

}  // namespace kva
