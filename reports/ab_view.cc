#include "reports/ab_view.h"

#include <algorithm>
#include <cmath>
#include <limits>
#include <nlohmann/json.hpp>

#include "reports/text_format.h"

namespace kva {

const Json& ab_rows(const Json& report) { return report.at("ab").at("rows"); }

std::vector<const Json*> drawn_rows(const Json& report) {
  std::vector<const Json*> rows;
  for (const Json& row : ab_rows(report))
    if (rows.size() < kDrawnRows) rows.push_back(&row);
  return rows;
}

std::string short_recipe(const Json& row, std::size_t most_bytes) {
  return one_line(text_at(row, "recipe"), most_bytes);
}

Interval row_interval(const Json& row, const char* key) {
  const Json& bounds = row.at("intervals").at(key);
  const auto bound = [&](std::size_t i) {
    return bounds[i].is_number() ? bounds[i].get<double>() : std::numeric_limits<double>::quiet_NaN();
  };
  return {number_at(row, key), bound(0), bound(1)};
}

Interval estimate_of(const Json& object, const char* key) {
  const Json& found = object.at(key);
  return {number_at(found, "value"), number_at(found, "low"), number_at(found, "high")};
}

std::vector<double> layer_errors(const Json& row, const char* key) {
  std::vector<double> values;
  if (const auto error = row.find("layer_error"); error != row.end())
    for (const Json& value : error->at(key))
      values.push_back(value.is_number() ? value.get<double>() : std::numeric_limits<double>::quiet_NaN());
  return values;
}

const Json* passkey_of(const Json& report) {
  const auto passkey = report.at("ab").find("passkey");
  return passkey == report.at("ab").end() || passkey->is_null() ? nullptr : &*passkey;
}

double noise_floor_kl(const Json& report) {
  double floor = std::numeric_limits<double>::quiet_NaN();
  for (const Json& row : report.at("ab").at("noise_floor"))
    floor = std::fmax(floor, number_at(row, "kl_mean"));
  return floor;
}

}  // namespace kva
