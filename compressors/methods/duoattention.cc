// duoattention: heads that retrieve keep everything, the others the first tokens and the latest ones
// (DuoAttention, arXiv 2410.10819). The paper trains a gate for each head; here a head's score needs no
// training: the share of the prompt's attention that went further back than the recent window and to none of
// the first tokens,
//
//   score = sum over tokens s >= sink of (mass(s) - near(s)) / sum over all tokens of mass(s),
//
// where near(s) counts only queries less than `recent` tokens after s. The share `retrieval` of all KV heads
// with the highest scores keep everything. Decided when the prompt is complete.

#include <algorithm>
#include <map>
#include <numeric>

#include "compressors/eviction_step.h"
#include "compressors/policy_parameters.h"

namespace kva {
namespace {

double far_share(const TokenTable& table, int64_t sink) {
  double far = 0.0, all = 0.0;
  for (std::size_t t = 0; t < table.mass.size(); ++t) {
    all += double{table.mass[t]};
    if (table.positions[t] >= sink) far += double{table.mass[t]} - double{table.near_mass[t]};
  }
  return all > 0.0 ? far / all : 0.0;
}

class DuoAttentionPolicy : public TokenPolicy {
 public:
  explicit DuoAttentionPolicy(const Arguments& arguments)
      : retrieval_(arguments.number("retrieval")),
        sink_(arguments.integer("sink")),
        recent_(extent_of(arguments, "recent")) {}

  PolicyNeeds needs() const override { return {.mass = true, .near_tokens = recent_}; }
  bool acts(const PolicyMoment& moment) const override { return !moment.in_prompt; }

  void end_prompt(SequenceId sequence, std::span<const TokenTable> tables) override {
    std::vector<double> scores;
    for (const TokenTable& table : tables) scores.push_back(far_share(table, sink_));
    std::vector<std::size_t> order(tables.size());
    std::iota(order.begin(), order.end(), std::size_t{0});
    std::stable_sort(order.begin(), order.end(),
                     [&](std::size_t a, std::size_t b) { return scores[a] > scores[b]; });
    const auto retrieving =
        static_cast<std::size_t>(Extent{retrieval_, true}.of(static_cast<int64_t>(tables.size())));
    auto& streaming = streaming_[sequence];
    streaming.clear();
    decisions_.clear();
    for (std::size_t i = 0; i < order.size(); ++i) {
      const TokenTable& table = tables[order[i]];
      if (i >= retrieving) streaming[{table.layer, table.kv_head}] = true;
    }
    for (const TokenTable& table : tables) {
      const bool streams = streaming.contains({table.layer, table.kv_head});
      Stays stays(table.positions.size(), 1);
      if (streams) keep_protected(table, sink_, recent_.of(table.seen), stays);
      decisions_.push_back({.layer = table.layer,
                            .kv_head = table.kv_head,
                            .policies = {streams ? "streaming" : "retrieval"},
                            .tokens_before = table.tokens(),
                            .tokens_after = std::count(stays.begin(), stays.end(), char{1})});
    }
  }

  void choose(SequenceId sequence, const PolicyMoment&, std::span<const TokenTable> layer,
              std::span<Stays> stays) override {
    const auto decided = streaming_.find(sequence);
    if (decided == streaming_.end()) return;
    for (std::size_t h = 0; h < layer.size(); ++h)
      if (decided->second.contains({layer[h].layer, layer[h].kv_head}))
        keep_protected(layer[h], sink_, recent_.of(layer[h].seen), stays[h]);
  }

  void forked(SequenceId sequence, SequenceId copy) override {
    if (const auto decided = streaming_.find(sequence); decided != streaming_.end())
      streaming_[copy] = decided->second;
  }
  void forget(SequenceId sequence) override { streaming_.erase(sequence); }
  std::vector<HeadDecision> decisions() const override { return decisions_; }

 private:
  double retrieval_;
  int64_t sink_;
  Extent recent_;
  std::map<SequenceId, std::map<std::pair<int, int>, bool>> streaming_;
  std::vector<HeadDecision> decisions_;
};

}  // namespace

MethodInfo duoattention_method() {
  return {.name = "duoattention",
          .meaning = "Heads that look far back keep all tokens, the others the first and the latest",
          .kind = MethodKind::kStructure,
          .papers = {{"DuoAttention: Efficient Long-Context LLM Inference with Retrieval and Streaming Heads",
                      "2410.10819"}},
          .parameters = {share_parameter("retrieval", "0.5", "share of all KV heads that keep everything"),
                         {.name = "sink",
                          .kind = ParameterKind::kInteger,
                          .fallback = "64",
                          .lower = 0,
                          .upper = 65536,
                          .unit = "tokens",
                          .help = "first tokens that the other heads keep"},
                         tokens_parameter("recent", "256",
                                          "latest tokens that the other heads keep; up to 1 a share of all "
                                          "seen so far")},
          .check = check_eviction,
          .make = make_eviction<DuoAttentionPolicy>};
}

}  // namespace kva
