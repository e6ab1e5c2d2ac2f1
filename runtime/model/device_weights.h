// A model's weights in a device's memory.
#pragma once

#include <memory>

#include "runtime/backend/backend.h"
#include "runtime/model/model_config.h"
#include "runtime/model/weights.h"

namespace kva {

// A copy of `host` on the backend's device, in the same types; it owns its memory and holds the backend.
// Throws InputError where the queries', keys' and values' weights (or those of the gate and
// what it gates) differ in type, and where the device's memory ends; Interrupted.
ModelWeights upload_weights(const ModelWeights& host, const ModelConfig& config,
                            const std::shared_ptr<Backend>& backend);

}  // namespace kva
