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
Table ab_against_bases_table(const nlohmann::ordered_json& report);  // merging beside eviction
Table ab_bytes_table(const nlohmann::ordered_json& report);          // the ledgers
Table ab_time_table(const nlohmann::ordered_json& report);
Table ab_codec_table(const nlohmann::ordered_json& report);     // predicted and achieved savings, codec speed
Table ab_capacity_table(const nlohmann::ordered_json& report);  // what memory holds
Table ab_turn_table(const nlohmann::ordered_json& report);
// The windows of each row with the largest mean KL; no rows where there is but one window.
Table ab_window_table(const nlohmann::ordered_json& report);
Table ab_layer_error_table(const nlohmann::ordered_json& report);
Table ab_passkey_table(const nlohmann::ordered_json& report);       // no rows where it was not run
Table ab_passkey_cell_table(const nlohmann::ordered_json& report);  // likewise
Table ab_run_table(const nlohmann::ordered_json& report);  // texts, protocol, memory and time of the run

// What was done: the text and its windows, then steps, pages and the base.
std::vector<std::string> ab_protocol_sentences(const nlohmann::ordered_json& report);

}  // namespace kva
