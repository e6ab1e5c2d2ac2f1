// l2norm: the tokens with the smallest keys stay (L2Compress, arXiv 2406.11430): they get most attention. The
// first layers do not follow that rule, and are left alone. Tokens keep their order.

#include "compressors/eviction_step.h"
#include "compressors/policy_parameters.h"

namespace kva {
namespace {

class L2NormPolicy : public RankedPolicy {
 public:
  explicit L2NormPolicy(const Arguments& arguments)
      : RankedPolicy(ranked_options(arguments)), skip_layers_(arguments.integer("skip_layers")) {}
  PolicyNeeds needs() const override { return {.keys = true}; }

 protected:
  int64_t budget(const TokenTable& table) const override {
    return table.layer < skip_layers_ ? table.seen : RankedPolicy::budget(table);
  }
  void score(const TokenTable& table, std::span<double> scores) const override {
    const std::size_t dim = table.keys.size() / std::max<std::size_t>(1, scores.size());
    for (std::size_t t = 0; t < scores.size(); ++t) {
      double squares = 0.0;
      for (std::size_t i = 0; i < dim; ++i)
        squares += double{table.keys[t * dim + i]} * table.keys[t * dim + i];
      scores[t] = -squares;
    }
  }

 private:
  int64_t skip_layers_;
};

}  // namespace

MethodInfo l2norm_method() {
  std::vector<ParameterInfo> parameters = ranked_parameters("0.5");
  parameters.insert(parameters.begin() + 1, {.name = "skip_layers",
                                             .kind = ParameterKind::kInteger,
                                             .fallback = "2",
                                             .lower = 0,
                                             .upper = 1 << 20,
                                             .unit = "layers",
                                             .help = "first layers that are left alone"});
  return {
      .name = "l2norm",
      .meaning = "Keeps the tokens whose keys are shortest",
      .kind = MethodKind::kStructure,
      .papers = {{"A Simple and Effective L2 Norm-Based Strategy for KV Cache Compression", "2406.11430"}},
      .parameters = std::move(parameters),
      .check = check_eviction,
      .make = make_eviction<L2NormPolicy>};
}

}  // namespace kva
