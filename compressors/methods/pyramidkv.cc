// pyramidkv: snapkv with more room for the lower layers (PyramidKV, arXiv 2406.02069). With c tokens of
// capacity beyond the window, budgets fall in equal steps from 2c - c / beta in the first layer to c / beta
// in the last; where the first would pass the prompt it is the prompt, and the last what that leaves. The
// mean stays c.

#include <cmath>

#include "compressors/eviction_step.h"
#include "compressors/policy_parameters.h"
#include "compressors/prompt_policy.h"

namespace kva {
namespace {

class PyramidKvPolicy : public PromptPolicy {
 public:
  explicit PyramidKvPolicy(const Arguments& arguments)
      : PromptPolicy(arguments), beta_(arguments.number("beta")) {}

  void end_prompt(SequenceId, std::span<const TokenTable> tables) override {
    first_layer_ = tables.front().layer;
    last_layer_ = tables.back().layer;
  }

 protected:
  std::vector<int64_t> budgets(std::span<const TokenTable> layer, std::span<const std::vector<double>>,
                               int64_t window) const override {
    std::vector<int64_t> result;
    for (const TokenTable& table : layer) {
      const auto beyond = static_cast<double>(std::max<int64_t>(0, capacity(table) - window));
      const auto most = static_cast<double>(table.seen - window);
      double lowest = beyond / beta_, highest = 2 * beyond - lowest;
      if (highest > most) {
        highest = most;
        lowest = 2 * beyond - highest;
      }
      const double depth = last_layer_ > first_layer_ ? static_cast<double>(table.layer - first_layer_) /
                                                            static_cast<double>(last_layer_ - first_layer_)
                                                      : 0.5;
      result.push_back(window + std::llround(highest - depth * (highest - lowest)));
    }
    return result;
  }

 private:
  double beta_;
  int first_layer_ = 0;
  int last_layer_ = 0;
};

}  // namespace

MethodInfo pyramidkv_method() {
  std::vector<ParameterInfo> parameters = prompt_parameters();
  parameters.push_back({.name = "beta",
                        .kind = ParameterKind::kNumber,
                        .fallback = "20",
                        .lower = 1,
                        .upper = 1e6,
                        .help = "the last layer's room beyond the window is the mean divided by this"});
  return {.name = "pyramidkv",
          .meaning = "As snapkv, with more tokens in the lower layers and fewer in the upper ones",
          .kind = MethodKind::kStructure,
          .papers = {{"PyramidKV: Dynamic KV Cache Compression based on Pyramidal Information Funneling",
                      "2406.02069"}},
          .parameters = std::move(parameters),
          .check = check_eviction,
          .make = make_eviction<PyramidKvPolicy>};
}

}  // namespace kva
