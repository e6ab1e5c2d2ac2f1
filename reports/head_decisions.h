// What a strategy told each KV head to do (FastGen, DuoAttention), as logs, reports and CSV files show it.
#pragma once

#include <nlohmann/json_fwd.hpp>
#include <span>
#include <string>
#include <vector>

#include "compressors/head_decision.h"
#include "reports/tables.h"

namespace kva {

// layer_id:31(heads:1)->['special','punctuation','frequency']-> kv cache len:18->16
std::string decision_line(const HeadDecision& decision);

nlohmann::ordered_json decisions_json(std::span<const HeadDecision> decisions);

// Bytes of each layer without and with the strategy, in MB (10^6), an average row first:
// layer_id,raw MB,compressed MB,ratio %
std::string layer_bytes_csv(std::span<const double> raw_bytes, std::span<const double> compressed_bytes);

// By recipe and layer: how many heads took which policy, and the tokens that they keep. Takes the whole
// report; no rows where no recipe tells heads apart.
Table ab_heads_table(const nlohmann::ordered_json& report);

}  // namespace kva
