// Tables and sentences of the "compression" object of a report, made once and written in every form.
#pragma once

#include <map>
#include <nlohmann/json_fwd.hpp>
#include <string>
#include <vector>

#include "reports/html_page.h"
#include "reports/screen.h"
#include "reports/tables.h"

namespace kva {

// All take the whole report.
Table compress_bytes_table(const nlohmann::ordered_json& report);  // the ledger
Table compress_files_table(const nlohmann::ordered_json& report);  // before and after zstd
Table compress_error_table(const nlohmann::ordered_json& report);  // by layer, all of them first
Table compress_codec_table(const nlohmann::ordered_json& report);
std::vector<std::string> compress_sentences(const nlohmann::ordered_json& report);

void compress_summary(const nlohmann::ordered_json& report, Screen& screen);
std::string compress_markdown(const nlohmann::ordered_json& report);
std::string compress_html(const PageSource& source);

}  // namespace kva
