// The step that evicts: it asks a policy which tokens stay and takes the others out of the tables. Every
// eviction strategy is this step with a policy of its own.
#pragma once

#include <array>
#include <map>
#include <memory>
#include <string>
#include <utility>
#include <vector>

#include "compressors/method.h"
#include "compressors/step.h"
#include "compressors/table_rewrite.h"
#include "compressors/token_policy.h"

namespace kva {

class EvictionStep : public Step {
 public:
  // `method` begins the counters' names and errors.
  EvictionStep(std::string_view method, std::unique_ptr<TokenPolicy> policy);

  void begin(const StepContext& context) override;
  Observations observes() const override;
  bool works_on_tables() const override { return true; }
  bool reads_numbers() const override { return false; }
  void begin_prompt(const StepContext& context, SequenceId sequence, int64_t start, int64_t tokens) override;
  // A plan a layer.
  std::vector<Plan> revise(const StepContext& context, const Revision& revision) override;
  void forked(const StepContext&, SequenceId sequence, SequenceId copy, int64_t pages) override;
  void forget(const StepContext&, SequenceId sequence) override;
  std::vector<std::pair<std::string, double>> counters() const override;
  std::vector<std::string> remarks() const override;
  std::vector<HeadDecision> decisions() const override { return policy_->decisions(); }

  TokenPolicy& policy() { return *policy_; }

 private:
  // A table as the policy sees it, and where its tokens are.
  struct Work {
    TokenTable table;
    std::vector<TablePage> pages;                 // those that may change
    std::vector<std::pair<int32_t, int32_t>> at;  // page and row of each movable token
    Stays stays;
    TableRewrite rewrite;
  };
  struct Prompt {
    int64_t tokens = 0;
    int64_t end = 0;  // position behind it
  };

  PolicyMoment moment(const KvCache& cache, const Revision& revision) const;
  void read(const StepContext& context, const Revision& revision, Work& work) const;
  void read_mass(const KvCache& cache, SequenceId sequence, TokenTable& table) const;
  void read_keys(const KvCache& cache, const Work& work, SequenceId sequence, TokenTable& table) const;
  void decide(const Revision& revision, const PolicyMoment& moment, std::vector<Work>& works);
  void count(const Work& work);

  std::string method_;
  std::unique_ptr<TokenPolicy> policy_;
  PolicyNeeds needs_;
  std::vector<std::pair<int, int>> tables_;  // layer and KV head, by layer
  std::map<SequenceId, Prompt> prompts_;
  bool classes_known_ = false;
  int64_t dropped_ = 0;                         // of all layers and KV heads
  std::array<int64_t, 4> dropped_by_age_ = {};  // quarters of the sequence, the latest first
  std::array<int64_t, kTokenClasses.size()> dropped_by_class_ = {};
  double dropped_mass_ = 0;
  int64_t recoded_ = 0;
};

// For MethodInfo::make.
template <class Policy>
std::unique_ptr<Step> make_eviction(const Arguments& arguments) {
  return std::make_unique<EvictionStep>(arguments.method().name, std::make_unique<Policy>(arguments));
}

}  // namespace kva
