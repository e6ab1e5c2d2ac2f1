// attentiontop: the tokens that got most attention so far stay (Scissorhands' and H2O's statistic without
// their recent window).

#include "compressors/eviction_step.h"
#include "compressors/policy_parameters.h"

namespace kva {
namespace {

class AttentionTopPolicy : public RankedPolicy {
 public:
  explicit AttentionTopPolicy(const Arguments& arguments) : RankedPolicy(ranked_options(arguments)) {}
  PolicyNeeds needs() const override { return {.mass = true}; }

 protected:
  void score(const TokenTable& table, std::span<double> scores) const override {
    std::copy(table.mass.begin(), table.mass.end(), scores.begin());
  }
};

}  // namespace

MethodInfo attentiontop_method() {
  return {.name = "attentiontop",
          .meaning = "Keeps the tokens that got most attention so far",
          .kind = MethodKind::kStructure,
          .parameters = ranked_parameters("0.7"),
          .check = check_eviction,
          .make = make_eviction<AttentionTopPolicy>};
}

}  // namespace kva
