// Which tokens of a sequence stay in the cache: what an eviction strategy decides, one layer at a time. How
// tokens go (masked at once, pages compacted as soon as that frees one) is the machinery's
// (compressors/eviction_step.h); a strategy is one small class.
#pragma once

#include <cstdint>
#include <memory>
#include <span>
#include <string>
#include <utility>
#include <vector>

#include "compressors/head_decision.h"
#include "runtime/kv/batch.h"
#include "runtime/model/token_class.h"

namespace kva {

// The tokens of one table (a KV head of a layer) that are still there, in order of position. What a policy
// did not ask for is empty.
struct TokenTable {
  int layer = 0;
  int kv_head = 0;
  int64_t seen = 0;     // tokens of the sequence so far, those that are gone included
  int64_t movable = 0;  // the first so many may go; the rest is on pages that still fill or wait for a format
  std::vector<int32_t> positions;
  // By token, averaged over the query heads of the KV head.
  std::vector<float> mass;       // attention so far, summed over queries
  std::vector<float> late_mass;  // of the prompt's last queries only (PolicyNeeds::late_queries)
  std::vector<float> near_mass;  // of queries less than a window after the token (near_tokens)
  std::vector<TokenClass> classes;
  std::vector<float> keys;  // [tokens, head_dim] as stored; a norm is the same in every key basis

  int64_t tokens() const { return static_cast<int64_t>(positions.size()); }
};

// A window: a count of tokens, or a share (0, 1] of a length.
struct Extent {
  double value = 0;
  bool share = false;
  // Rounded up, at most `whole`.
  int64_t of(int64_t whole) const;
};

struct PolicyNeeds {
  bool mass = false;
  bool classes = false;
  bool keys = false;
  Extent late_queries = {};  // of the prompt; 0: none
  Extent near_tokens = {};   // of the prompt; 0: none
};

// Whether token i of a table stays.
using Stays = std::vector<char>;

struct PolicyMoment {
  bool prompt_ended = false;  // just now: the whole prompt is in the cache, and nothing generated
  bool in_prompt = false;     // some of it is still to come
  int64_t prompt_tokens = 0;  // of the latest prompt; tokens before it are not counted
};

// Belongs to one step, and so to one cache. Deterministic: what is kept depends on neither threads nor other
// sequences.
class TokenPolicy {
 public:
  virtual ~TokenPolicy() = default;

  virtual PolicyNeeds needs() const { return {}; }

  // Before anything else; the seed is the run's.
  virtual void begin(uint64_t /*seed*/) {}

  // Whether it decides anything now; if not, nothing is read.
  virtual bool acts(const PolicyMoment&) const { return true; }

  // A prompt is complete: called once with all tables of the step, layer by layer, before choose().
  virtual void end_prompt(SequenceId /*sequence*/, std::span<const TokenTable> /*tables*/) {}

  // Clears stays[h][i] for each token i < movable of table h that goes; all are set before. The tables are
  // those KV heads of one layer that the step has.
  virtual void choose(SequenceId sequence, const PolicyMoment& moment, std::span<const TokenTable> layer,
                      std::span<Stays> stays) = 0;

  virtual void forked(SequenceId /*sequence*/, SequenceId /*copy*/) {}
  virtual void forget(SequenceId /*sequence*/) {}

  // What each head was told at the latest prompt's end; empty for policies that treat heads alike.
  virtual std::vector<HeadDecision> decisions() const { return {}; }
};

// The usual strategy: so many tokens stay, those of the highest score; the first tokens and the latest ones
// stay whatever their score.
struct RankedOptions {
  Extent keep = {1.0, true};  // of all tokens seen
  int64_t sinks = 0;          // first tokens of the sequence that stay
  Extent recent = {};         // latest tokens that stay
  bool by_layer = false;      // KV heads of a layer keep the same tokens, by the sum of their scores' ranks
};

class RankedPolicy : public TokenPolicy {
 public:
  explicit RankedPolicy(const RankedOptions& options) : options_(options) {}

  void choose(SequenceId sequence, const PolicyMoment& moment, std::span<const TokenTable> layer,
              std::span<Stays> stays) override;

 protected:
  // scores [tokens]: the higher, the longer it stays; ties go to the earlier token. Finite.
  virtual void score(const TokenTable& table, std::span<double> scores) const = 0;
  // How many tokens of the table stay, protected ones included.
  virtual int64_t budget(const TokenTable& table) const { return options_.keep.of(table.seen); }

  const RankedOptions& options() const { return options_; }

 private:
  RankedOptions options_;
};

// Keeps the tokens that are protected (immovable, sinks, recent) and, of the others, those with the highest
// scores until `budget` tokens stay in all.
void keep_highest(const TokenTable& table, std::span<const double> scores, int64_t budget, int64_t sinks,
                  int64_t recent, Stays& stays);

// Keeps those that are protected, and no others.
void keep_protected(const TokenTable& table, int64_t sinks, int64_t recent, Stays& stays);

// Whether the token stays whatever its score.
bool is_protected(const TokenTable& table, int64_t token, int64_t sinks, int64_t recent);

// 0 for the lowest of the numbers, 1 for the highest, by rank; equal numbers rank by place, the earlier one
// higher.
std::vector<double> ranks(std::span<const double> numbers);

}  // namespace kva
