#include "reports/run_device.h"

#include <fmt/format.h>

#include <memory>
#include <nlohmann/json.hpp>
#include <vector>

#include "compressors/compressor.h"
#include "kernels/device.h"
#include "kernels/parallel.h"
#include "reports/device_check.h"
#include "runtime/error.h"
#include "runtime/model/decoder.h"

namespace kva {
namespace {

// Empty: the device computes what it should.
std::string what_differs(const RunDevice& device) {
  for (const SelfCheck& check : check_device(device.ops))
    if (!check.passed)
      return fmt::format("{} does not compute what the CPU does: {}", device.name(), check.finding);
  return "";
}

}  // namespace

void check_device_name(std::string_view name) {
  if (name != "auto" && name != "cpu" && name != "cuda")
    throw InputError(fmt::format("--device: expected cpu, cuda or auto, found {:.40}", name));
}

std::string RunDevice::name() const { return ops ? fmt::format("cuda ({})", ops->name()) : "cpu"; }

nlohmann::ordered_json device_memory_json(const RunDevice& device) {
  if (!device.ops) return nullptr;
  const DeviceMemory memory = device.ops->memory();
  return {{"peak_device_bytes", memory.peak_bytes},
          {"driver_used_bytes", memory.used_bytes},
          {"driver_total_bytes", memory.total_bytes}};
}

RunDevice open_device(const DeviceChoice& choice, const Say& say) {
  check_device_name(choice.name);
  if (choice.name == "cpu") return {};
  std::string why_not;
  RunDevice device{choice.open(&why_not)};
  if (device.ops) why_not = what_differs(device);
  if (device.ops && why_not.empty()) return device;
  if (choice.name == "cuda")
    throw InputError(fmt::format("--device cuda: {}; use --device cpu, or auto", why_not));
  if (device.ops || !cuda_device_status().devices.empty())
    say(fmt::format("the run is on the CPU: {}", why_not));
  return {};
}

RunDevice settled(RunDevice device, const DeviceChoice& choice, const DeviceNeeds& needs, const Say& say) {
  if (!device.ops) return device;
  try {
    needs(device);
    return device;
  } catch (const InputError& error) {
    if (choice.name == "cuda") throw;
    say(fmt::format("the run is on the CPU: {}", error.what()));
    return {};
  }
}

void check_cache_runs(const RunDevice& device, KvCacheOptions options) {
  if (!device.ops) return;
  options.backend = make_device_backend(device.ops);
  ThreadPool pool(1);
  const KvCache cache(options, pool);
}

void check_recipe_runs(const RunDevice& device, const Recipe& recipe, const ModelConfig& config,
                       int page_tokens) {
  if (!device.ops) return;
  KvCacheOptions options = Compressor::cache_options(
      recipe, cache_options_for(config, page_tokens, DType::kF16, recipe.key_basis()));
  options.backend = make_device_backend(device.ops);
  ThreadPool pool(1);
  // Which token is of which class is the tokenizer's; that there is one is enough here.
  const auto classes = std::make_shared<const TokenClasses>(std::vector<TokenClass>());
  KvCache cache(options, pool);
  const Compressor compressor(recipe, cache, pool, 0, classes);
}

}  // namespace kva
