// Codes of a codebook with free levels, scaled for each token or channel: x = offset + scale * level[code].
// nuq's format (KVQuant, arXiv 2401.18079, section 3.3) with levels in [-1, 1] that stand for a vector's
// range, and TurboQuant's (arXiv 2504.19874, algorithm 1) with levels for a rotated token's numbers and its
// length.
#pragma once

#include <memory>
#include <string>

#include "compressors/codecs/signposts.h"
#include "kernels/packed.h"
#include "runtime/kv/codec.h"
#include "runtime/kv/side_memory.h"

namespace kva {

struct CodebookFormat {
  enum class Scaling {
    kRange,   // -1 and 1 stand for the smallest and the largest number of the vector
    kLength,  // no offset; the vector keeps its length. Levels are for numbers of variance 1
  };

  std::string name;                    // of the codec
  int bits = 4;                        // 2 to 4, or 8
  ScaleAxis axis = ScaleAxis::kToken;  // what a vector is: a token, or a channel over the page
  Scaling scaling = Scaling::kRange;
  bool for_keys = false;  // packed so that scores are fast, else sums of values; the same numbers
  double outliers = 0.0;  // share of a page side's numbers that are kept as they are, to f16; for kRange

  int levels() const { return 1 << bits; }
};

// codebook: f16 [levels], ascending. Payload: scales f16 [vectors], offsets f16 [vectors] where there are
// any, then the tokens' packed rows (kernels/packed.h); everything but the rows counts as scales. encode()
// throws InputError for numbers that are not finite or scales over f16's range.
std::shared_ptr<const SideCodec> make_codebook_codec(const CodebookFormat& format,
                                                     std::shared_ptr<const SideArray> codebook);

// Adds the numbers of a page but for its outliers as the format's levels will stand for them, each with its
// token's weight, or 1 where `weights` is null. Scaling is kRange; rows are finite and within f16.
void add_scaled(const CodebookFormat& format, MatView<const float> rows, const float* weights,
                NumberHistogram& into);

}  // namespace kva
