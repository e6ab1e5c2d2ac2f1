#include "compressors/part_probe.h"

#include "compressors/codecs/quant_codec.h"

namespace kva {

std::shared_ptr<const SideCodec> part_probe_codec(Side side) {
  return make_quant_codec({.bits = 3,
                           .axis = side == Side::kKey ? ScaleAxis::kChannel : ScaleAxis::kToken,
                           .outliers = 0.01,
                           .for_keys = side == Side::kKey});
}

}  // namespace kva
