// The tables of a report, made once and written as Markdown or HTML.
#pragma once

#include <limits>
#include <nlohmann/json_fwd.hpp>
#include <string>
#include <vector>

namespace kva {

struct Cell {
  std::string text;                                        // as read, not yet escaped
  double sort = std::numeric_limits<double>::quiet_NaN();  // the number behind it, where there is one
};

struct Table {
  std::string id;  // "opportunities": anchor and file-wide unique
  std::string title;
  std::string caption;  // one sentence: what a row is and how to read it
  struct Column {
    std::string name;
    bool numeric = true;
  };
  std::vector<Column> columns;
  std::vector<std::vector<Cell>> rows;  // each as long as columns
};

Table identity_table(
    const nlohmann::ordered_json& report);                // model and run: what was measured, and with what
Table cache_table(const nlohmann::ordered_json& report);  // bytes and times
// The member as a sentence; "" where the run was on the CPU.
std::string device_memory_line(const nlohmann::ordered_json& object, const char* member);
Table sets_table(const nlohmann::ordered_json& report);  // prompt sets side by side
Table prompts_table(const nlohmann::ordered_json& report);
Table redundancy_table(const nlohmann::ordered_json& report);  // layers x kinds of pages, beside the control
Table opportunity_table(
    const nlohmann::ordered_json& report);  // freed bytes by metric and threshold, layers summed
// Between prompt sets, with intervals; one metric, or all of them where it is empty.
Table difference_table(const nlohmann::ordered_json& report, const std::string& metric = "");
Table cluster_table(const nlohmann::ordered_json& report);
Table duplicate_table(const nlohmann::ordered_json& report);
Table norm_table(const nlohmann::ordered_json& report);
Table definition_table(const nlohmann::ordered_json& report);
Table option_table(const nlohmann::ordered_json& report);

// GitHub Markdown, without the title; "" for a table without rows.
std::string to_markdown(const Table& table);
// A <table> whose headers sort it where scripts run; a paragraph that says so for a table without rows.
std::string to_html(const Table& table);

}  // namespace kva
