// What a model's predictions lose where one layer's keys or values alone are coded: what the method `budget`
// weighs a layer's errors by.
#pragma once

#include <cstdint>
#include <span>
#include <vector>

#include "reports/evaluated_cache.h"
#include "reports/progress.h"

namespace kva {

// The first tokens of the text, of which the second half is scored; more would cost time and change little.
inline constexpr int64_t kPartLossTokens = 512;

// [side_index(layer, side)] -> mean KL from a dense f32 cache in nats a token, >= 0, with that part in the
// codes of compressors/part_probe.h and all others dense. The scored half needs a page of tokens before it:
// empty where the text is too short for one. Throws Interrupted.
std::vector<double> measure_part_losses(std::span<const int32_t> text, KeyBasis basis,
                                        const CacheSetup& setup, Progress& progress);

}  // namespace kva
