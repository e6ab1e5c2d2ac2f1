// keydiff: the tokens whose keys differ most from the others stay (KeyDiff, arXiv 2504.15364): those with the
// lowest cosine to the mean of the table's keys, each scaled to length 1.

#include <cmath>

#include "compressors/eviction_step.h"
#include "compressors/policy_parameters.h"

namespace kva {
namespace {

class KeyDiffPolicy : public RankedPolicy {
 public:
  explicit KeyDiffPolicy(const Arguments& arguments) : RankedPolicy(ranked_options(arguments)) {}
  PolicyNeeds needs() const override { return {.keys = true}; }

 protected:
  void score(const TokenTable& table, std::span<double> scores) const override {
    if (scores.empty()) return;
    const std::size_t dim = table.keys.size() / scores.size();
    std::vector<double> units(table.keys.begin(), table.keys.end()), mean(dim, 0.0);
    for (std::size_t t = 0; t < scores.size(); ++t) {
      double squares = 0.0;
      for (std::size_t i = 0; i < dim; ++i) squares += units[t * dim + i] * units[t * dim + i];
      const double scale = squares > 0.0 ? 1.0 / std::sqrt(squares) : 0.0;
      for (std::size_t i = 0; i < dim; ++i) mean[i] += units[t * dim + i] *= scale;
    }
    // The length of the mean is the same for all.
    for (std::size_t t = 0; t < scores.size(); ++t) {
      double dot = 0.0;
      for (std::size_t i = 0; i < dim; ++i) dot += units[t * dim + i] * mean[i];
      scores[t] = -dot;
    }
  }
};

}  // namespace

MethodInfo keydiff_method() {
  return {.name = "keydiff",
          .meaning = "Keeps the tokens whose keys differ most from the mean key",
          .kind = MethodKind::kStructure,
          .papers = {{"KeyDiff: Key Similarity-Based KV Cache Eviction for Long-Context LLM Inference in "
                      "Resource-Constrained Environments",
                      "2504.15364"}},
          .parameters = ranked_parameters("0.5"),
          .check = check_eviction,
          .make = make_eviction<KeyDiffPolicy>};
}

}  // namespace kva
