#include "compressors/prompt_policy.h"

#include <algorithm>

#include "compressors/policy_parameters.h"

namespace kva {

PromptPolicy::PromptPolicy(const Arguments& arguments)
    : window_(extent_of(arguments, "window")),
      kernel_(arguments.integer("kernel")),
      capacity_(extent_of(arguments, "capacity")) {}

void PromptPolicy::choose(SequenceId, const PolicyMoment& moment, std::span<const TokenTable> layer,
                          std::span<Stays> stays) {
  const int64_t window = window_.of(moment.prompt_tokens);
  std::vector<std::vector<double>> scores;
  for (const TokenTable& table : layer) {
    const auto before =
        std::lower_bound(table.positions.begin(), table.positions.end(), table.seen - window) -
        table.positions.begin();
    scores.push_back(pooled(std::span(table.late_mass).first(static_cast<std::size_t>(before)), kernel_));
    scores.back().resize(table.positions.size(), 0.0);  // the window, which stays
  }
  const std::vector<int64_t> budget = budgets(layer, scores, window);
  for (std::size_t h = 0; h < layer.size(); ++h)
    keep_highest(layer[h], scores[h], budget[h], 0, window, stays[h]);
}

std::vector<double> pooled(std::span<const float> numbers, int64_t kernel) {
  const auto count = static_cast<int64_t>(numbers.size());
  std::vector<double> means(numbers.size());
  for (int64_t i = 0; i < count; ++i) {
    double sum = 0.0;
    for (int64_t j = std::max<int64_t>(0, i - kernel / 2); j <= std::min(count - 1, i + kernel / 2); ++j)
      sum += double{numbers[static_cast<std::size_t>(j)]};
    means[static_cast<std::size_t>(i)] = sum / static_cast<double>(kernel);
  }
  return means;
}

std::vector<ParameterInfo> prompt_parameters() {
  return {
      tokens_parameter("window", "32", "the prompt's last tokens, whose queries rank the others; they stay"),
      {.name = "kernel",
       .kind = ParameterKind::kInteger,
       .fallback = "5",
       .lower = 1,
       .upper = 63,
       .values = {1, 3, 5, 7, 9, 11, 13, 15, 21, 31, 63},
       .unit = "tokens",
       .help = "neighbours that a token's score is the mean of"},
      tokens_parameter("capacity", "0.5",
                       "tokens of the prompt that stay, the window included; up to 1 a share of it")};
}

}  // namespace kva
