// The codes that one layer's keys or values are put into, alone, to see what the model loses by it:
// part_losses of a PageSet. A loss is proportional to the squared error as long as both are small, so that
// one measurement stands for all widths.
#pragma once

#include <memory>

#include "runtime/kv/codec.h"
#include "runtime/kv/kv_cache.h"

namespace kva {

inline constexpr const char* kPartProbe = "quant(bits=3,axes=kivi,outliers=0.01)";

// What kPartProbe stores a side in.
std::shared_ptr<const SideCodec> part_probe_codec(Side side);

}  // namespace kva
