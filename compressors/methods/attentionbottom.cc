// attentionbottom: the tokens that got least attention so far stay. A control: it should lose to
// attentiontop, and by how much says what attention is worth as a guide.

#include "compressors/eviction_step.h"
#include "compressors/policy_parameters.h"

namespace kva {
namespace {

class AttentionBottomPolicy : public RankedPolicy {
 public:
  explicit AttentionBottomPolicy(const Arguments& arguments) : RankedPolicy(ranked_options(arguments)) {}
  PolicyNeeds needs() const override { return {.mass = true}; }

 protected:
  void score(const TokenTable& table, std::span<double> scores) const override {
    for (std::size_t t = 0; t < scores.size(); ++t) scores[t] = -double{table.mass[t]};
  }
};

}  // namespace

MethodInfo attentionbottom_method() {
  return {.name = "attentionbottom",
          .meaning = "Keeps the tokens that got least attention so far: a control",
          .kind = MethodKind::kStructure,
          .parameters = ranked_parameters("0.7"),
          .check = check_eviction,
          .make = make_eviction<AttentionBottomPolicy>};
}

}  // namespace kva
