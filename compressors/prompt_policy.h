// Strategies that act once, when a prompt is complete, and rank its tokens by the attention of its last
// queries (SnapKV, arXiv 2404.14469): the question at the end of a prompt tells what of it will be needed.
// What is generated afterwards stays.
#pragma once

#include <cstdint>
#include <span>
#include <vector>

#include "compressors/method.h"
#include "compressors/token_policy.h"

namespace kva {

class PromptPolicy : public TokenPolicy {
 public:
  // Reads window, kernel and capacity.
  explicit PromptPolicy(const Arguments& arguments);

  PolicyNeeds needs() const override { return {.late_queries = window_}; }
  bool acts(const PolicyMoment& moment) const override { return moment.prompt_ended; }
  void choose(SequenceId sequence, const PolicyMoment& moment, std::span<const TokenTable> layer,
              std::span<Stays> stays) override;

 protected:
  // Tokens that stay in each table of a layer, the window included. scores: of each table [tokens], before
  // the window; `window` is its length in tokens.
  virtual std::vector<int64_t> budgets(std::span<const TokenTable> layer,
                                       std::span<const std::vector<double>> scores, int64_t window) const = 0;

  int64_t capacity(const TokenTable& table) const { return capacity_.of(table.seen); }

 private:
  Extent window_;
  int64_t kernel_;
  Extent capacity_;
};

// Means over `kernel` neighbours, an odd number of them; beyond the ends there are zeros, as in the authors'
// code.
std::vector<double> pooled(std::span<const float> numbers, int64_t kernel);

// window, kernel, capacity.
std::vector<ParameterInfo> prompt_parameters();

}  // namespace kva
