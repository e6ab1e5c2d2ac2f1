// Where a run computes: --device cpu, cuda or auto.
#pragma once

#include <functional>
#include <memory>
#include <nlohmann/json_fwd.hpp>
#include <string>
#include <string_view>

#include "compressors/recipe.h"
#include "kernels/cuda_device.h"
#include "kernels/device_ops.h"
#include "runtime/kv/kv_cache.h"
#include "runtime/model/model_config.h"

namespace kva {

// As kernels/cuda_device.h has it.
using DeviceOpener = std::function<std::shared_ptr<DeviceOps>(std::string* why_not)>;

struct DeviceChoice {
  std::string name = "auto";             // or "cpu", "cuda"
  DeviceOpener open = open_cuda_device;  // tests have another
};

// Throws InputError for any other name.
void check_device_name(std::string_view name);

struct RunDevice {
  std::shared_ptr<DeviceOps> ops;  // null: the CPU

  // "cpu" or "cuda", as trials name it.
  std::string kind() const { return ops ? "cuda" : "cpu"; }
  // "cpu", "cuda (NVIDIA H200)", as reports name it.
  std::string name() const;
};

// What the run has had of the device's memory so far, weights and workspace included, beside what the driver
// says of all programs: {"peak_device_bytes", "driver_used_bytes", "driver_total_bytes"}; null for the CPU.
nlohmann::ordered_json device_memory_json(const RunDevice& device);

// Told what a person should know.
using Say = std::function<void(const std::string& line)>;
// Throws InputError for what the run needs and the device cannot.
using DeviceNeeds = std::function<void(const RunDevice& device)>;

// The device that `choice` allows, once it has been seen to compute what the CPU does (check_device()).
// Throws InputError for cuda where there is none; for auto that is the CPU, and is said only where the
// machine has a GPU.
RunDevice open_device(const DeviceChoice& choice, const Say& say);
// The same device once it is known what runs, before anything does: where it does not meet the needs, the CPU
// for auto, which is said, and an InputError for cuda.
RunDevice settled(RunDevice device, const DeviceChoice& choice, const DeviceNeeds& needs, const Say& say);

// Throws InputError where the device cannot hold such a cache.
void check_cache_runs(const RunDevice& device, KvCacheOptions options);
// The same of a cache of the model under the recipe.
void check_recipe_runs(const RunDevice& device, const Recipe& recipe, const ModelConfig& config,
                       int page_tokens);

}  // namespace kva
