// attentionsink: the first tokens and the latest ones (StreamingLLM, arXiv 2309.17453). With keys(rotated) or
// keys(plain) tokens keep the positions that they had; keys(plain,cache-relative) counts them in the cache,
// as the paper does.

#include "compressors/eviction_step.h"
#include "compressors/policy_parameters.h"

namespace kva {
namespace {

class AttentionSinkPolicy : public TokenPolicy {
 public:
  explicit AttentionSinkPolicy(const Arguments& arguments)
      : sink_(arguments.integer("sink")), window_(extent_of(arguments, "window")) {}

  void choose(SequenceId, const PolicyMoment&, std::span<const TokenTable> layer,
              std::span<Stays> stays) override {
    for (std::size_t h = 0; h < layer.size(); ++h)
      keep_protected(layer[h], sink_, window_.of(layer[h].seen), stays[h]);
  }

 private:
  int64_t sink_;
  Extent window_;
};

}  // namespace

MethodInfo attentionsink_method() {
  return {.name = "attentionsink",
          .meaning = "Keeps the first tokens and the latest ones",
          .kind = MethodKind::kStructure,
          .papers = {{"Efficient Streaming Language Models with Attention Sinks", "2309.17453"}},
          .parameters = {{.name = "sink",
                          .aliases = {"sinks", "sink_size"},
                          .kind = ParameterKind::kInteger,
                          .fallback = "4",
                          .lower = 0,
                          .upper = 65536,
                          .unit = "tokens",
                          .help = "first tokens of a sequence that stay"},
                         [] {
                           ParameterInfo window = tokens_parameter(
                               "window", "1020",
                               "latest tokens that stay; up to 1 a share of all seen so far");
                           window.aliases = {"window_size"};
                           return window;
                         }()},
          .check = check_eviction,
          .make = make_eviction<AttentionSinkPolicy>};
}

}  // namespace kva
