// slidingwindow: the latest tokens, and of those before them the few that got most attention.

#include "compressors/eviction_step.h"
#include "compressors/policy_parameters.h"

namespace kva {
namespace {

class SlidingWindowPolicy : public RankedPolicy {
 public:
  explicit SlidingWindowPolicy(const Arguments& arguments)
      : RankedPolicy({.keep = extent_of(arguments, "window"),
                      .sinks = arguments.integer("sinks"),
                      .recent = extent_of(arguments, "window"),
                      .by_layer = arguments.word("scope") == "layer"}),
        important_(extent_of(arguments, "important")) {}
  PolicyNeeds needs() const override { return {.mass = important_.value > 0}; }

 protected:
  int64_t budget(const TokenTable& table) const override {
    return options().recent.of(table.seen) + important_.of(table.seen) + options().sinks;
  }
  void score(const TokenTable& table, std::span<double> scores) const override {
    if (important_.value > 0) std::copy(table.mass.begin(), table.mass.end(), scores.begin());
  }

 private:
  Extent important_;
};

}  // namespace

MethodInfo slidingwindow_method() {
  std::vector<ParameterInfo> parameters{
      tokens_parameter("window", "0.7", "latest tokens that stay; up to 1 a share of all seen so far"),
      optional_tokens_parameter("important", "0.1",
                                "tokens before the window that stay, those with most attention; up to 1 a "
                                "share of all seen so far"),
      sinks_parameter("0"), scope_parameter()};
  return {.name = "slidingwindow",
          .meaning = "Keeps the latest tokens, and the most attended of those before",
          .kind = MethodKind::kStructure,
          .papers = {{"Longformer: The Long-Document Transformer", "2004.05150"}},
          .parameters = std::move(parameters),
          .check = check_eviction,
          .make = make_eviction<SlidingWindowPolicy>};
}

}  // namespace kva
