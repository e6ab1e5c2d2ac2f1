// The tables and sentences of the "ab" object of a report, made once and written in every form.
#pragma once

#include <nlohmann/json_fwd.hpp>
#include <string>
#include <vector>

#include "reports/tables.h"

namespace kva {

// All take the whole report.
Table ab_table(const nlohmann::ordered_json& report);           // the rows: bytes, quality, speed
Table ab_interval_table(const nlohmann::ordered_json& report);  // their intervals and tails
Table ab_noise_table(const nlohmann::ordered_json& report);
Table ab_difference_table(const nlohmann::ordered_json& report);
Table ab_equal_bytes_table(const nlohmann::ordered_json& report);
Table ab_bytes_table(const nlohmann::ordered_json& report);  // the ledgers
Table ab_time_table(const nlohmann::ordered_json& report);
Table ab_turn_table(const nlohmann::ordered_json& report);

// What was done: the text and its windows, then steps, pages and the base.
std::vector<std::string> ab_protocol_sentences(const nlohmann::ordered_json& report);

}  // namespace kva
