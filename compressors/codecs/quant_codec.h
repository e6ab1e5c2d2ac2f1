// Uniform quantization of a page side to codes of a few bits, read as they are packed.
#pragma once

#include <memory>

#include "kernels/packed.h"
#include "runtime/kv/codec.h"

namespace kva {

struct QuantFormat {
  int bits = 4;                        // 8, 4, 3 or 2
  ScaleAxis axis = ScaleAxis::kToken;  // which numbers share a scale
  int64_t group = 0;                   // channels (kToken) or tokens (kChannel) a scale; 0: all of them
  bool symmetric = false;
  double outliers = 0.0;       // share of the numbers kept as f16 beside the codes, rounded up
  int64_t dense_channels = 0;  // channels kept as f16: those of the widest range
  bool norm_correct = false;   // each token is read with its own length, through an f16 factor
  bool for_keys = false;       // packed so that scores are fast, else sums of values; the same numbers
};

// Asymmetric: x̂ = zero + scale * code with zero = f16(min) and scale = (max - zero) / (2^bits - 1), rounded
// up to f16, over the group's numbers that are not kept; |x - x̂| <= scale / 2 + the rounding of zero.
// Symmetric: x̂ = scale * (code - 2^(bits-1)), scale = max|x| / (2^(bits-1) - 1) rounded up.
//
// Outliers are exactly ceil(outliers * tokens * width) numbers: those with the largest |x - mean| / sqrt(std)
// of their group, earlier ones first where equal. They are taken out before the scales are computed, as
// KVQuant (arXiv 2401.18079) and GEAR (2403.05527) do, and read back as f16.
//
// Payload: scales f16, zeros f16 (asymmetric), the packed rows, to an even number of bytes where anything
// follows, the outliers (outliers.h), indices u16 and values f16 [channel, token] of the dense channels,
// factors f16 [tokens]. All but the rows counts as scales. encode() throws InputError for numbers that are
// not finite or over f16's range.
std::shared_ptr<const SideCodec> make_quant_codec(const QuantFormat& format);

}  // namespace kva
