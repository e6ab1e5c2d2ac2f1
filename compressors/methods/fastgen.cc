// fastgen: each KV head the cheapest of five policies that keeps enough of its attention (FastGen, arXiv
// 2310.01801). In order, each adding to the one before:
//
//   special       special tokens of the tokenizer, and the first `sinks` tokens
//   punctuation   tokens of punctuation and symbols
//   frequency     the share r_f of the tokens seen that got most attention so far
//   locality      the share r_l of the tokens seen that came last
//   full          all
//
// When the prompt is complete a head takes the first under which the mean over the prompt's queries of the
// attention to tokens that would be there reaches T. For locality a query's own last tokens count: those less
// than r_l times the prompt before it. The policy then stays; which tokens it keeps moves on with the
// sequence. At T = 1 every head is full.

#include <algorithm>
#include <map>

#include "compressors/eviction_step.h"
#include "compressors/policy_parameters.h"

namespace kva {
namespace {

enum class HeadPolicy { kSpecial, kPunctuation, kFrequency, kLocality, kFull };
constexpr std::array<const char*, 5> kPolicyNames = {"special", "punctuation", "frequency", "locality",
                                                     "full"};

class FastGenPolicy : public TokenPolicy {
 public:
  explicit FastGenPolicy(const Arguments& arguments)
      : threshold_(arguments.number("t")),
        frequent_{arguments.number("r_f"), true},
        local_{arguments.number("r_l"), true},
        sinks_(arguments.integer("sinks")) {}

  PolicyNeeds needs() const override { return {.mass = true, .classes = true, .near_tokens = local_}; }
  bool acts(const PolicyMoment& moment) const override { return !moment.in_prompt; }

  void end_prompt(SequenceId sequence, std::span<const TokenTable> tables) override {
    auto& of_tables = policies_[sequence];
    decisions_.clear();
    for (const TokenTable& table : tables) {
      const auto [entry, is_new] = of_tables.try_emplace({table.layer, table.kv_head}, HeadPolicy::kFull);
      if (is_new) entry->second = cheapest(table);
      const Stays stays = kept(table, entry->second);
      HeadDecision decision{.layer = table.layer,
                            .kv_head = table.kv_head,
                            .tokens_before = table.tokens(),
                            .tokens_after = std::count(stays.begin(), stays.end(), char{1})};
      for (std::size_t i = 0; i <= static_cast<std::size_t>(entry->second); ++i)
        decision.policies.emplace_back(kPolicyNames[i]);
      decisions_.push_back(std::move(decision));
    }
  }

  void choose(SequenceId sequence, const PolicyMoment&, std::span<const TokenTable> layer,
              std::span<Stays> stays) override {
    const auto decided = policies_.find(sequence);
    if (decided == policies_.end()) return;
    for (std::size_t h = 0; h < layer.size(); ++h)
      stays[h] = kept(layer[h], decided->second.at({layer[h].layer, layer[h].kv_head}));
  }

  void forked(SequenceId sequence, SequenceId copy) override {
    if (const auto decided = policies_.find(sequence); decided != policies_.end())
      policies_[copy] = decided->second;
  }
  void forget(SequenceId sequence) override { policies_.erase(sequence); }
  std::vector<HeadDecision> decisions() const override { return decisions_; }

 private:
  HeadPolicy cheapest(const TokenTable& table) const {
    if (threshold_ >= 1.0) return HeadPolicy::kFull;
    double all = 0.0;
    for (const float mass : table.mass) all += double{mass};
    for (const HeadPolicy policy :
         {HeadPolicy::kSpecial, HeadPolicy::kPunctuation, HeadPolicy::kFrequency, HeadPolicy::kLocality}) {
      // What a query finds of its own latest tokens is not what stays of the prompt.
      const bool local = policy == HeadPolicy::kLocality;
      const Stays stays = marked(table, local ? HeadPolicy::kFrequency : policy);
      double found = 0.0;
      for (std::size_t t = 0; t < stays.size(); ++t) {
        if (stays[t])
          found += double{table.mass[t]};
        else if (local && !table.near_mass.empty())
          found += double{table.near_mass[t]};
      }
      if (found >= threshold_ * all) return policy;
    }
    return HeadPolicy::kFull;
  }

  // The tokens that the policy names, and those that cannot go.
  Stays kept(const TokenTable& table, HeadPolicy policy) const {
    Stays stays = marked(table, policy);
    std::fill(stays.begin() + table.movable, stays.end(), char{1});
    return stays;
  }

  Stays marked(const TokenTable& table, HeadPolicy policy) const {
    Stays stays(table.positions.size(), policy == HeadPolicy::kFull);
    if (policy == HeadPolicy::kFull) return stays;
    for (std::size_t t = 0; t < stays.size(); ++t) {
      const TokenClass of = table.classes[t];
      stays[t] =
          table.positions[t] < sinks_ || of == TokenClass::kSpecial ||
          (policy >= HeadPolicy::kPunctuation && of == TokenClass::kPunctuation) ||
          (policy >= HeadPolicy::kLocality && table.positions[t] >= table.seen - local_.of(table.seen));
    }
    if (policy >= HeadPolicy::kFrequency) mark_frequent(table, stays);
    return stays;
  }

  void mark_frequent(const TokenTable& table, Stays& stays) const {
    std::vector<std::size_t> order(stays.size());
    for (std::size_t t = 0; t < order.size(); ++t) order[t] = t;
    const auto count = std::min<int64_t>(frequent_.of(table.seen), table.tokens());
    std::nth_element(order.begin(), order.begin() + count, order.end(), [&](std::size_t a, std::size_t b) {
      return table.mass[a] != table.mass[b] ? table.mass[a] > table.mass[b] : a < b;
    });
    for (int64_t i = 0; i < count; ++i) stays[order[static_cast<std::size_t>(i)]] = 1;
  }

  double threshold_;
  Extent frequent_;
  Extent local_;
  int64_t sinks_;
  std::map<SequenceId, std::map<std::pair<int, int>, HeadPolicy>> policies_;
  std::vector<HeadDecision> decisions_;
};

}  // namespace

MethodInfo fastgen_method() {
  return {
      .name = "fastgen",
      .meaning = "Each head the cheapest of five policies that keeps enough of its attention",
      .kind = MethodKind::kStructure,
      .papers = {{"Model Tells You What to Discard: Adaptive KV Cache Compression for LLMs", "2310.01801"}},
      .parameters = {share_parameter("t", "0.95", "attention that a head's policy has to keep"),
                     share_parameter("r_f", "0.3", "tokens kept as frequent, of all seen so far"),
                     share_parameter("r_l", "0.3", "tokens kept as local, of all seen so far"),
                     sinks_parameter("0")},
      .check = check_eviction,
      .make = make_eviction<FastGenPolicy>};
}

}  // namespace kva
