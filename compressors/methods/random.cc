// random: tokens drawn once and for all, each KV head its own. The base line that any ranking has to beat.

#include "kernels/random.h"

#include "compressors/eviction_step.h"
#include "compressors/policy_parameters.h"

namespace kva {
namespace {

class RandomPolicy : public RankedPolicy {
 public:
  explicit RandomPolicy(const Arguments& arguments)
      : RankedPolicy(ranked_options(arguments)), draw_(static_cast<uint64_t>(arguments.integer("draw"))) {}
  void begin(uint64_t seed) override { draw_ ^= SplitMix64(seed).next() << 20; }

 protected:
  // A token's number is the same at every step, so that a share of all tokens seen stays, not a share of a
  // share.
  void score(const TokenTable& table, std::span<double> scores) const override {
    SplitMix64 of_table(SplitMix64(draw_).next() ^ (static_cast<uint64_t>(table.layer) << 20) ^
                        static_cast<uint64_t>(table.kv_head));
    const uint64_t start = of_table.next();
    for (std::size_t t = 0; t < scores.size(); ++t)
      scores[t] = SplitMix64(start ^ static_cast<uint64_t>(table.positions[t])).uniform();
  }

 private:
  uint64_t draw_;
};

}  // namespace

MethodInfo random_method() {
  std::vector<ParameterInfo> parameters = ranked_parameters("0.7");
  parameters.push_back({.name = "draw",
                        .kind = ParameterKind::kInteger,
                        .fallback = "0",
                        .lower = 0,
                        .upper = 1 << 20,
                        .help = "number of the draw; another one, or another seed, keeps other tokens"});
  return {.name = "random",
          .meaning = "Keeps tokens drawn at random, each KV head its own",
          .kind = MethodKind::kStructure,
          .parameters = std::move(parameters),
          .check = check_eviction,
          .make = make_eviction<RandomPolicy>};
}

}  // namespace kva
