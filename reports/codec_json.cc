#include "reports/codec_json.h"

#include <nlohmann/json.hpp>

#include "reports/json_number.h"

namespace kva {

using nlohmann::ordered_json;

ordered_json codec_json(const CompressorStats& stats) {
  const double dense_bytes = 2.0 * static_cast<double>(stats.values);
  return {{"plans", stats.plans},
          {"sides", stats.sides},
          {"values", stats.values},
          {"predicted_bytes", stats.predicted_bytes},
          {"freed_bytes", stats.freed_bytes},
          {"seconds", rounded(stats.seconds)},
          {"gb_per_s", stats.values > 0 && stats.seconds > 0 ? rounded(dense_bytes / stats.seconds / 1e9)
                                                             : ordered_json(nullptr)},
          {"remarks", stats.remarks}};
}

}  // namespace kva
