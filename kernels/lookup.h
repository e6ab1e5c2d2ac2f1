// Numbers of a small codebook under a scale and an offset for each token or channel.
#pragma once

#include <cstdint>
#include <span>

#include "kernels/packed.h"
#include "kernels/views.h"

namespace kva {

// rows(t, c) = offsets[v] + scales[v] * levels[codes[t * cols + c]], v being t where axis is kToken, else c.
// Every code is a place in `levels`.
void lookup_levels(const uint8_t* codes, std::span<const float> levels, ScaleAxis axis, const float* scales,
                   const float* offsets, MatView<float> rows);

}  // namespace kva
