// Questions that the written forms of an A/B report ask of it. Reports here have passed check_report().
#pragma once

#include <cstddef>
#include <string>
#include <utility>
#include <vector>

#include "reports/report_view.h"

namespace kva {

// Rows that pictures show, in order: more than these could not be told apart.
inline constexpr std::size_t kDrawnRows = 40;
// The parts of bytes held, as ledgers name them, and as readers do.
inline const std::vector<std::pair<const char*, const char*>> kHeldParts = {{"payload", "payload"},
                                                                            {"scales", "scales"},
                                                                            {"side", "side data"},
                                                                            {"tables", "tables"},
                                                                            {"slack", "slack"}};

const Json& ab_rows(const Json& report);
std::vector<const Json*> drawn_rows(const Json& report);
std::string short_recipe(const Json& row, std::size_t most_bytes);

// Value and 95% interval; NaN where there is none.
struct Interval {
  double value;
  double low;
  double high;
  bool holds_zero() const { return low <= 0 && high >= 0; }
};
Interval row_interval(const Json& row, const char* key);    // "kl_mean", "delta_perplexity", "top1_agreement"
Interval estimate_of(const Json& object, const char* key);  // {value, low, high}

// Figures of each layer from the row's layer_error, "k", "v" or "missing": NaN where there is nothing to
// compare, empty in reports of versions that did not measure it.
std::vector<double> layer_errors(const Json& row, const char* key);

// The passkey run of the report; null where there was none.
const Json* passkey_of(const Json& report);

// The largest mean KL between two exact caches; NaN where none was measured.
double noise_floor_kl(const Json& report);

}  // namespace kva
