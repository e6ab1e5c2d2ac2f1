// Questions that every written form asks of a report. Reports here have passed check_report().
#pragma once

#include <nlohmann/json_fwd.hpp>
#include <string>
#include <string_view>
#include <vector>

namespace kva {

using Json = nlohmann::ordered_json;

// The member as a number; NaN where it is absent or null.
double number_at(const Json& object, const char* key);
std::string text_at(const Json& object, const char* key);  // "" where it is absent or no string
bool text_is(const Json& object, const char* key, std::string_view value);  // the same, compared in place
double mean_of(const std::vector<double>& values);  // of those that are not NaN; NaN where there are none

// A kind of page that is looked at: keys in a basis, or values.
struct Series {
  std::string side;   // "K" or "V"
  std::string basis;  // "" for values
  std::string label;  // "K after RoPE", "K before RoPE", "K", "V"
  std::string slug;   // "k-rotated", "v": for anchors
  bool matches(const Json& row) const;
};

// Those with whole-layer similarity, keys first, the stored basis before the other.
std::vector<Series> report_series(const Json& report);
// Those of them whose bytes are in the cache: keys in the stored basis, and values.
std::vector<Series> stored_series(const Json& report);

// "0.95", the key of a threshold in share_over and redundancy.
std::string threshold_key(double threshold);
// The threshold of the report that is nearest to `wanted`.
double nearest_threshold(const Json& report, double wanted);

// The threshold that sentences and pictures of redundancy (centred cosine) use: the one nearest to 0.9, or
// where no page has a partner over that the highest lower one at which some page has; 0.9 again where there
// is none.
double redundancy_threshold(const Json& report);

// The whole-layer row, or null.
const Json* find_similarity(const Json& report, int layer, const Series& series, const std::string& metric,
                            const std::string& group = "all");
// A figure of each layer from whole-layer rows, NaN where there is none.
struct LayerFigure {
  std::vector<double> real;
  std::vector<double> random;
  std::vector<double> shuffled;
};
LayerFigure layer_redundancy(const Json& report, const Series& series, const std::string& metric,
                             double threshold, const std::string& group = "all");

// What a cover could free, summed over layers (all, or one).
struct Freed {
  double bytes = 0;
  double dense_bytes = 0;
  double pages = 0;
  double all_pages = 0;
  double shuffled_bytes = 0;
  double share() const;
  double shuffled_share() const;
};
Freed freed_pages(const Json& report, const std::vector<Series>& series, const std::string& metric,
                  double threshold, int layer = -1);

int layer_count(const Json& report);
std::vector<std::string> set_names(const Json& report);
// "centred cosine", "relative L2 similarity".
std::string metric_label(const std::string& metric);

}  // namespace kva
