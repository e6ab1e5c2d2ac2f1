// An eviction strategy of one's own: every n-th token stays, and the latest ones. In the tree it is a file of
// compressors/methods/ and a line in compressors/methods.cc; docs/add-a-compressor.md says more.
#include "compressors/eviction_step.h"
#include "compressors/policy_parameters.h"

namespace kva {
namespace {

class StridePolicy : public TokenPolicy {
 public:
  explicit StridePolicy(const Arguments& arguments)
      : every_(static_cast<int64_t>(arguments.number("every"))), recent_(extent_of(arguments, "recent")) {}

  void choose(SequenceId, const PolicyMoment&, std::span<const TokenTable> layer,
              std::span<Stays> stays) override {
    for (std::size_t h = 0; h < layer.size(); ++h)
      for (int64_t t = 0; t < layer[h].movable; ++t)
        stays[h][t] = layer[h].positions[t] % every_ == 0 ||
                      is_protected(layer[h], t, 0, recent_.of(layer[h].seen));
  }

 private:
  int64_t every_;
  Extent recent_;
};

}  // namespace

MethodInfo stride_method() {
  return {.name = "stride",
          .meaning = "Keeps every n-th token and the latest ones",
          .kind = MethodKind::kStructure,
          .parameters = {tokens_parameter("every", "2", "distance of the tokens that stay"),
                         tokens_parameter("recent", "64", "latest tokens that stay")},
          .check = check_eviction,
          .make = make_eviction<StridePolicy>};
}

}  // namespace kva
