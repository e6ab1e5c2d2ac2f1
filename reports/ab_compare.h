// Two A/B reports side by side: rows of the same recipe, differences with intervals from the sums that the
// reports keep of each block of tokens.
#pragma once

#include <nlohmann/json_fwd.hpp>
#include <string>
#include <vector>

#include "analyzer/estimate.h"

namespace kva {

// The same recipe in both; differences are of b less a.
struct ComparedRow {
  std::string recipe;
  double bytes_a = 0, bytes_b = 0;
  double kl_a = 0, kl_b = 0;
  double decode_a = 0, decode_b = 0;  // tokens/s; NaN where not measured
  Estimate log_perplexity_ratio;      // ln(perplexity of b / perplexity of a)
  Estimate kl_mean;
  Estimate top1_agreement;
};

struct AbComparison {
  std::vector<ComparedRow> rows;    // in the order of a
  std::vector<std::string> only_a;  // recipes
  std::vector<std::string> only_b;
  std::vector<std::string> settings;  // "page size 64 and 16": what else differs
};

// Reports of kind "ab" that check_report() took; the names are for errors. Throws InputError where the
// model's tensors, the tokens or the windows differ: then nothing can be paired.
AbComparison compare_ab(const nlohmann::ordered_json& a, const std::string& name_a,
                        const nlohmann::ordered_json& b, const std::string& name_b);

// An aligned table; at most `width` columns.
std::string comparison_text(const AbComparison& comparison, bool color, int width);

// "kl_mean>0.01", "top1_agreement<0.98", "delta.kl_mean>0.001": a number of b's rows, or with "delta." of b's
// less a's, that must not be so.
struct Limit {
  std::string field;
  bool delta = false;
  bool above = true;
  double value = 0;
  std::string text;  // as given
};

// Throws InputError for what is no such condition.
Limit parse_limit(const std::string& text);

// One line for each row of b (with "delta.", each row of both) that the limit fails; the baseline counts only
// where it is the only row. Throws InputError for a field that the rows do not have as a number.
std::vector<std::string> broken_limits(const Limit& limit, const nlohmann::ordered_json& a,
                                       const nlohmann::ordered_json& b);

}  // namespace kva
