// h2o: heavy hitters and the latest tokens (H2O, arXiv 2306.14048): attention received so far, summed over
// all queries, ranks the tokens before the recent ones; the cache is brought to its size after every step.

#include "compressors/eviction_step.h"
#include "compressors/policy_parameters.h"

namespace kva {
namespace {

// Half of the budget is recent where the recipe does not say otherwise, as in the paper.
RankedOptions h2o_options(const Arguments& arguments) {
  RankedOptions options = ranked_options(arguments);
  if (!arguments.has("recent")) options.recent = {options.keep.value / 2, options.keep.share};
  return options;
}

class H2OPolicy : public RankedPolicy {
 public:
  explicit H2OPolicy(const Arguments& arguments) : RankedPolicy(h2o_options(arguments)) {}
  PolicyNeeds needs() const override { return {.mass = true}; }

 protected:
  void score(const TokenTable& table, std::span<double> scores) const override {
    std::copy(table.mass.begin(), table.mass.end(), scores.begin());
  }
};

}  // namespace

MethodInfo h2o_method() {
  return {.name = "h2o",
          .meaning = "Keeps the tokens with most attention so far and the latest ones, at every step",
          .kind = MethodKind::kStructure,
          .papers = {{"H2O: Heavy-Hitter Oracle for Efficient Generative Inference of Large Language Models",
                      "2306.14048"}},
          .parameters = {tokens_parameter("keep", "0.5",
                                          "tokens that stay in all; up to 1 a share of all seen so far"),
                         optional_tokens_parameter("recent", "",
                                                   "latest among them; half of keep where it is not given"),
                         sinks_parameter("0"), scope_parameter()},
          .check = check_eviction,
          .make = make_eviction<H2OPolicy>};
}

}  // namespace kva
