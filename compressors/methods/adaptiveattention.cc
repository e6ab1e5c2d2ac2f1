// adaptiveattention: as attentiontop, but a head whose attention is spread keeps more tokens than one that
// looks at few. With p the attention that the table's tokens got so far, summing to 1, and
// h = -sum(p ln p) / ln n its entropy between 0 (one token got all) and 1 (all got the same), the head keeps
//
//   min(1, base_keep * (1/2 + h))
//
// of the tokens seen.

#include <cmath>

#include "compressors/eviction_step.h"
#include "compressors/policy_parameters.h"

namespace kva {
namespace {

double relative_entropy(const std::vector<float>& mass) {
  double sum = 0.0;
  for (const float of_token : mass) sum += double{of_token};
  if (mass.size() < 2 || sum <= 0.0) return 1.0;
  double entropy = 0.0;
  for (const float of_token : mass) {
    const double p = double{of_token} / sum;
    if (p > 0.0) entropy -= p * std::log(p);
  }
  return entropy / std::log(static_cast<double>(mass.size()));
}

class AdaptiveAttentionPolicy : public RankedPolicy {
 public:
  explicit AdaptiveAttentionPolicy(const Arguments& arguments)
      : RankedPolicy({.sinks = arguments.integer("sinks"), .recent = extent_of(arguments, "recent")}),
        base_keep_(arguments.number("base_keep")) {}
  PolicyNeeds needs() const override { return {.mass = true}; }

 protected:
  int64_t budget(const TokenTable& table) const override {
    const double keep = std::min(1.0, base_keep_ * (0.5 + relative_entropy(table.mass)));
    return Extent{keep, true}.of(table.seen);
  }
  void score(const TokenTable& table, std::span<double> scores) const override {
    std::copy(table.mass.begin(), table.mass.end(), scores.begin());
  }

 private:
  double base_keep_;
};

}  // namespace

MethodInfo adaptiveattention_method() {
  return {.name = "adaptiveattention",
          .meaning = "Keeps the most attended tokens, more of them where attention is spread",
          .kind = MethodKind::kStructure,
          .parameters = {{.name = "base_keep",
                          .kind = ParameterKind::kNumber,
                          .fallback = "0.7",
                          .lower = 0,
                          .upper = 1,
                          .above_lower = true,
                          .unit = "share",
                          .help = "share of the tokens seen that stays where attention is half spread"},
                         sinks_parameter("0"),
                         optional_tokens_parameter(
                             "recent", "0",
                             "latest tokens that always stay; up to 1 a share of all seen so far")},
          .check = check_eviction,
          .make = make_eviction<AdaptiveAttentionPolicy>};
}

}  // namespace kva
