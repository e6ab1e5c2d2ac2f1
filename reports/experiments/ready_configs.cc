#include "reports/experiments/ready_configs.h"

#include <fmt/format.h>
#include <fmt/ranges.h>

#include <algorithm>
#include <string>

#include "compressors/spelling.h"
#include "reports/assets.h"
#include "runtime/error.h"

namespace kva {

std::vector<std::string_view> ready_configs() {
  return {"quick-test", "general", "repetitive", "code", "seven-strategies", "attention-sink-minicache",
          "fastgen"};
}

std::string_view ready_config(std::string_view name) {
  const std::vector<std::string_view> names = ready_configs();
  if (std::find(names.begin(), names.end(), name) == names.end())
    throw InputError(fmt::format("--create-config: expected {}, found {:.40}{}", fmt::join(names, ", "), name,
                                 suggestion(lower_case(name), names)));
  return asset(std::string(name) + ".yaml");
}

}  // namespace kva
