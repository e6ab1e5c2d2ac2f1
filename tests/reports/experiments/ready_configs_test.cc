#include "reports/experiments/ready_configs.h"

#include <gtest/gtest.h>

#include "compressors/methods.h"
#include "reports/experiments/experiment_config.h"
#include "runtime/error.h"

namespace kva {
namespace {

// The first name of a recipe.
std::string method_name(const std::string& strategy) { return strategy.substr(0, strategy.find('(')); }

TEST(ReadyConfigs, AllThatNameKnownMethodsAreValid) {
  int valid = 0;
  for (const std::string_view name : ready_configs()) {
    const ConfigNode root =
        ConfigNode::parse_text(ready_config(name), std::string(name) + ".yaml", ConfigSyntax::kYaml);
    const ConfigNode strategies = *root.find("strategies");
    bool known = true;
    for (std::size_t i = 0; i < strategies.size(); ++i)
      known &= find_method(method_name(strategies.at(i).as_text())) != nullptr;
    if (!known) {
      EXPECT_THROW(read_experiments(root), InputError) << name;
      continue;
    }
    const ExperimentFile file = read_experiments(root);
    ASSERT_EQ(file.experiments.size(), 1u) << name;
    EXPECT_TRUE(file.experiments[0].strategies[0].is_baseline()) << name;
    EXPECT_EQ(file.experiments[0].strategies.size(), strategies.size()) << name << ": Baseline is written";
    ++valid;
  }
  EXPECT_GE(valid, 4);
  EXPECT_THROW(ready_config("nothing"), InputError);
}

}  // namespace
}  // namespace kva
