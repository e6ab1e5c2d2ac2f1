// hybridnpercent: recency, attention and token class weighed together. A token's score is
//
//   (r * recency + a * attention + t * class) / (r + a + t)
//
// where recency and attention are its rank among the table's tokens by position and by attention so far, 0
// for the lowest and 1 for the highest, and class is 1 for special tokens, 2/3 for words, 1/3 for punctuation
// and 0 for white space.

#include "compressors/eviction_step.h"
#include "compressors/policy_parameters.h"

namespace kva {
namespace {

double class_weight(TokenClass of) {
  switch (of) {
    case TokenClass::kSpecial: return 1.0;
    case TokenClass::kWord: return 2.0 / 3.0;
    case TokenClass::kPunctuation: return 1.0 / 3.0;
    case TokenClass::kSpace: return 0.0;
  }
  return 0.0;
}

class HybridPolicy : public RankedPolicy {
 public:
  explicit HybridPolicy(const Arguments& arguments)
      : RankedPolicy(ranked_options(arguments)),
        recency_(arguments.number("r")),
        attention_(arguments.number("a")),
        class_(arguments.number("t")) {}
  PolicyNeeds needs() const override { return {.mass = true, .classes = class_ > 0}; }

 protected:
  void score(const TokenTable& table, std::span<double> scores) const override {
    const std::vector<double> attention = ranks(std::vector<double>(table.mass.begin(), table.mass.end()));
    const double last = std::max<double>(1, static_cast<double>(scores.size()) - 1);
    for (std::size_t t = 0; t < scores.size(); ++t) {
      scores[t] = recency_ * static_cast<double>(t) / last + attention_ * attention[t];
      if (class_ > 0) scores[t] += class_ * class_weight(table.classes[t]);
      scores[t] /= recency_ + attention_ + class_;
    }
  }

 private:
  double recency_;
  double attention_;
  double class_;
};

std::string check_hybrid(const Arguments& arguments, const StepPlace& place) {
  if (arguments.number("r") + arguments.number("a") + arguments.number("t") <= 0)
    return "expected a weight over 0 among r, a and t, found none";
  return check_eviction(arguments, place);
}

}  // namespace

MethodInfo hybridnpercent_method() {
  std::vector<ParameterInfo> parameters{
      tokens_parameter("keep", "0.7", "tokens that stay; up to 1 a share of all seen so far"),
      weight_parameter("r", "0.5", "weight of recency"),
      weight_parameter("a", "0.3", "weight of attention"),
      weight_parameter("t", "0.2",
                       "weight of the token's class: special, then words, punctuation, white space"),
      sinks_parameter("0"),
      scope_parameter()};
  return {.name = "hybridnpercent",
          .meaning = "Keeps tokens by recency, attention and class, weighed together",
          .kind = MethodKind::kStructure,
          .parameters = std::move(parameters),
          .check = check_hybrid,
          .make = make_eviction<HybridPolicy>};
}

}  // namespace kva
