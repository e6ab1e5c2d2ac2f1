// snapkv: what the prompt's last queries attend to stays, each KV head its own tokens (SnapKV).

#include "compressors/eviction_step.h"
#include "compressors/policy_parameters.h"
#include "compressors/prompt_policy.h"

namespace kva {
namespace {

class SnapKvPolicy : public PromptPolicy {
 public:
  using PromptPolicy::PromptPolicy;

 protected:
  std::vector<int64_t> budgets(std::span<const TokenTable> layer, std::span<const std::vector<double>>,
                               int64_t) const override {
    std::vector<int64_t> result;
    for (const TokenTable& table : layer) result.push_back(capacity(table));
    return result;
  }
};

}  // namespace

MethodInfo snapkv_method() {
  return {.name = "snapkv",
          .meaning = "Keeps of a prompt what its last queries attend to, once it is complete",
          .kind = MethodKind::kStructure,
          .papers = {{"SnapKV: LLM Knows What You are Looking for Before Generation", "2404.14469"}},
          .parameters = prompt_parameters(),
          .check = check_eviction,
          .make = make_eviction<SnapKvPolicy>};
}

}  // namespace kva
