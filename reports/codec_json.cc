#include "reports/codec_json.h"

#include <nlohmann/json.hpp>

#include "reports/head_decisions.h"
#include "reports/json_number.h"

namespace kva {

using nlohmann::ordered_json;

ordered_json codec_json(const CompressorStats& stats) {
  ordered_json counters = ordered_json::object();
  for (const auto& [name, value] : stats.counters) counters[name] = rounded(value, 15);
  const double dense_bytes = 2.0 * static_cast<double>(stats.values);
  ordered_json json = {
      {"plans", stats.plans},
      {"sides", stats.sides},
      {"values", stats.values},
      {"predicted_bytes", stats.predicted_bytes},
      {"freed_bytes", stats.freed_bytes},
      {"seconds", rounded(stats.seconds)},
      {"observe_seconds", rounded(stats.observe_seconds)},
      {"gb_per_s", stats.values > 0 && stats.seconds > 0 ? rounded(dense_bytes / stats.seconds / 1e9)
                                                         : ordered_json(nullptr)},
      {"counters", std::move(counters)},
      {"remarks", stats.remarks}};
  if (!stats.decisions.empty()) json["heads"] = decisions_json(stats.decisions);
  return json;
}

}  // namespace kva
