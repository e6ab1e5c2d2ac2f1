// Tables of passkey retrieval.
#include <fmt/format.h>

#include <nlohmann/json.hpp>

#include "reports/ab_tables.h"
#include "reports/ab_view.h"
#include "reports/text_format.h"

namespace kva {
namespace {

// The base, then the rows.
std::vector<const Json*> rows_with_base(const Json& passkey) {
  std::vector<const Json*> rows = {&passkey.at("base")};
  for (const Json& row : passkey.at("rows")) rows.push_back(&row);
  return rows;
}

std::string name_of(const Json& passkey, const Json& row) {
  return text_at(row, "recipe") + (&row == &passkey.at("base") ? ", the base" : "");
}

Cell share(const Json& row, const char* key) {
  const double value = number_at(row, key);
  return {format_share(value), value};
}

}  // namespace

Table ab_passkey_table(const Json& report) {
  Table table{"ab-passkey",
              "Passkey retrieval",
              "",
              {{"recipe", false}, {"exact answers"}, {"95% interval", false}, {"right digits"}, {"trials"}},
              {}};
  const Json* passkey = passkey_of(report);
  if (!passkey) return table;
  table.caption = fmt::format(
      "A number of {} digits hidden in {}, asked for after the prompt was compressed (query-agnostic), over "
      "the {} of {} lengths and depths at which the dense base answers at least {} exactly.",
      format_count(number_at(*passkey, "digits")), one_line(text_at(*passkey, "filler"), 120),
      format_count(number_at(*passkey, "informative_cells")), passkey->at("cells").size(),
      format_share(number_at(*passkey, "informative_from"), 0));
  for (const Json* row : rows_with_base(*passkey)) {
    const double low = number_at(*row, "low"), trials = number_at(*row, "trials");
    table.rows.push_back({{name_of(*passkey, *row)},
                          share(*row, "accuracy"),
                          {fmt::format("[{}, {}]", format_share(low), format_share(number_at(*row, "high")))},
                          share(*row, "digit_accuracy"),
                          {format_count(trials), trials}});
  }
  return table;
}

Table ab_passkey_cell_table(const Json& report) {
  Table table{"ab-passkey-cells",
              "Passkey retrieval by length and depth",
              "Share of exact answers; depth is the share of the text before the key. In parentheses: cells "
              "that are not informative, for the base fails too often there.",
              {{"recipe", false}, {"tokens"}},
              {}};
  const Json* passkey = passkey_of(report);
  if (!passkey) return table;
  for (const Json& depth : passkey->at("depths"))
    table.columns.push_back({fmt::format("depth {:g}", depth.get<double>())});
  const std::size_t depths = passkey->at("depths").size();
  for (const Json* row : rows_with_base(*passkey)) {
    for (std::size_t i = 0; i < row->at("cells").size(); ++i) {
      const Json& cell = row->at("cells")[i];
      if (i % depths == 0) {
        const double length = number_at(cell, "length");
        table.rows.push_back({{name_of(*passkey, *row)}, {format_count(length), length}});
      }
      Cell shown = share(cell, "accuracy");
      if (!passkey->at("cells")[i].at("informative").get<bool>()) shown.text = "(" + shown.text + ")";
      table.rows.back().push_back(std::move(shown));
    }
  }
  return table;
}

}  // namespace kva
