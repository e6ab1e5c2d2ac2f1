// What compressing took, as reports say it.
#pragma once

#include <nlohmann/json_fwd.hpp>

#include "compressors/compressor.h"

namespace kva {

nlohmann::ordered_json codec_json(const CompressorStats& stats);

}  // namespace kva
