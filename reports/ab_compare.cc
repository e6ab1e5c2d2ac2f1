#include "reports/ab_compare.h"

#include <fmt/format.h>

#include <charconv>
#include <cmath>
#include <limits>
#include <nlohmann/json.hpp>

#include "analyzer/quality/bootstrap.h"
#include "reports/report_view.h"
#include "reports/screen.h"
#include "reports/text_format.h"
#include "runtime/error.h"

namespace kva {
namespace {

const Json& rows_of(const Json& report) { return report.at("ab").at("rows"); }

const Json* find_row(const Json& report, const std::string& recipe) {
  for (const Json& row : rows_of(report))
    if (text_is(row, "recipe", recipe)) return &row;
  return nullptr;
}

void require_equal(const Json& a, const Json& b, const char* what, const std::string& name_a,
                   const std::string& name_b) {
  if (a == b) return;
  throw InputError(fmt::format("{} and {}: expected the same {}, found {} and {}; they cannot be compared",
                               name_a, name_b, what, one_line(a.dump(), 60), one_line(b.dump(), 60)));
}

void require_pairs(const Json& a, const Json& b, const std::string& name_a, const std::string& name_b) {
  const auto check = [&](const Json& of_a, const Json& of_b, const char* what) {
    require_equal(of_a, of_b, what, name_a, name_b);
  };
  for (const auto& [report, name] : {std::pair(&a, &name_a), std::pair(&b, &name_b)})
    if (!report->contains("ab"))
      throw InputError(fmt::format("{}: kind: expected a report of `kvanalyze ab` or `eval`, found {}", *name,
                                   one_line(report->at("kind").dump(), 40)));
  check(a.at("model").at("tensor_hash"), b.at("model").at("tensor_hash"), "model (tensor hash)");
  check(a.at("ab").at("text").at("token_hash"), b.at("ab").at("text").at("token_hash"), "text (token hash)");
  check(a.at("ab").at("protocol").at("context"), b.at("ab").at("protocol").at("context"), "context");
  check(a.at("ab").at("blocks").at("window_tokens"), b.at("ab").at("blocks").at("window_tokens"),
        "scored tokens of the windows");
  check(a.at("ab").at("blocks").at("tokens"), b.at("ab").at("blocks").at("tokens"), "blocks of tokens");
}

std::vector<std::string> differing_settings(const Json& a, const Json& b) {
  std::vector<std::string> settings;
  for (const char* key : {"chunk_tokens", "turns", "page_size", "weights", "base"}) {
    const Json& of_a = a.at("ab").at("protocol").at(key);
    const Json& of_b = b.at("ab").at("protocol").at(key);
    if (of_a != of_b)
      settings.push_back(
          fmt::format("{} {} and {}", key, one_line(of_a.dump(), 40), one_line(of_b.dump(), 40)));
  }
  return settings;
}

// Differences of block means, each weighted by its tokens. Blocks of a window are drawn one by one, for they
// are as long as the bootstrap's own.
class BlockDifferences {
 public:
  explicit BlockDifferences(const Json& report)
      : sizes_(report.at("ab").at("blocks").at("tokens").get<std::vector<double>>()),
        bootstrap_(blocks_of_windows(report),
                   {.block_tokens = 1, .seed = report.at("provenance").at("seed").get<uint64_t>()}) {
    for (const double size : sizes_) tokens_ += size;
  }

  Estimate of(const Json& a, const Json& b, const char* key) const {
    const Json& sums_a = a.at("block_sums").at(key);
    const Json& sums_b = b.at("block_sums").at(key);
    std::vector<double> difference(sizes_.size());
    for (std::size_t i = 0; i < sizes_.size(); ++i) {
      const auto sum = [](const Json& value) {
        return value.is_number() ? value.get<double>() : std::numeric_limits<double>::quiet_NaN();
      };
      difference[i] = (sum(sums_b[i]) - sum(sums_a[i])) * static_cast<double>(sizes_.size()) / tokens_;
    }
    return bootstrap_.mean(difference);
  }

 private:
  static std::vector<int64_t> blocks_of_windows(const Json& report) {
    const Json& blocks = report.at("ab").at("blocks");
    std::vector<int64_t> counts;
    std::size_t next = 0;
    for (const Json& window : blocks.at("window_tokens")) {
      double left = window.get<double>();
      int64_t count = 0;
      for (; left > 0 && next < blocks.at("tokens").size(); ++next, ++count)
        left -= blocks.at("tokens")[next].get<double>();
      if (left != 0) throw InputError("ab.blocks.tokens: expected whole blocks in every window");
      counts.push_back(count);
    }
    return counts;
  }

  std::vector<double> sizes_;
  double tokens_ = 0;
  BlockBootstrap bootstrap_;
};

}  // namespace

AbComparison compare_ab(const Json& a, const std::string& name_a, const Json& b, const std::string& name_b) {
  require_pairs(a, b, name_a, name_b);
  const BlockDifferences differences(a);
  AbComparison comparison;
  comparison.settings = differing_settings(a, b);
  for (const Json& row : rows_of(a)) {
    const std::string recipe = text_at(row, "recipe");
    const Json* other = find_row(b, recipe);
    if (!other) {
      comparison.only_a.push_back(recipe);
      continue;
    }
    comparison.rows.push_back({.recipe = recipe,
                               .bytes_a = number_at(row, "bytes_held"),
                               .bytes_b = number_at(*other, "bytes_held"),
                               .kl_a = number_at(row, "kl_mean"),
                               .kl_b = number_at(*other, "kl_mean"),
                               .decode_a = number_at(row, "decode_tokens_per_s"),
                               .decode_b = number_at(*other, "decode_tokens_per_s"),
                               .log_perplexity_ratio = differences.of(row, *other, "nll"),
                               .kl_mean = differences.of(row, *other, "kl"),
                               .top1_agreement = differences.of(row, *other, "same_top")});
  }
  for (const Json& row : rows_of(b))
    if (!find_row(a, text_at(row, "recipe"))) comparison.only_b.push_back(text_at(row, "recipe"));
  return comparison;
}

std::string comparison_text(const AbComparison& comparison, bool color, int width) {
  const auto estimate = [](const Estimate& found, std::string (*format)(double)) {
    const std::string interval = std::isnan(found.low)
                                     ? "no interval"
                                     : fmt::format("[{}, {}]", format(found.low), format(found.high));
    return fmt::format("{} {}", format(found.value), interval);
  };
  const auto significant = [](double value) { return format_significant(value); };
  const auto points = [](double value) { return format_change(value); };
  Screen screen(color, width);
  for (const std::string& setting : comparison.settings) screen.line("Differs", one_line(setting));
  for (const ComparedRow& row : comparison.rows) {
    screen.add(one_line(row.recipe, 400), kBold);
    screen.end();
    screen.line("  held", fmt::format("{} → {} ({})", format_bytes(row.bytes_a), format_bytes(row.bytes_b),
                                      format_change(row.bytes_b / row.bytes_a - 1)));
    screen.line("  mean KL", fmt::format("{} → {}, difference {}", format_significant(row.kl_a),
                                         format_significant(row.kl_b), estimate(row.kl_mean, significant)));
    screen.line("  ln ppl", fmt::format("difference {}", estimate(row.log_perplexity_ratio, significant)));
    screen.line("  top-1", fmt::format("difference {}", estimate(row.top1_agreement, points)));
    if (!std::isnan(row.decode_a) && !std::isnan(row.decode_b))
      screen.line("  decode",
                  fmt::format("{} → {} tokens/s ({})", format_rate(row.decode_a), format_rate(row.decode_b),
                              format_change(row.decode_b / row.decode_a - 1)));
  }
  for (const std::string& recipe : comparison.only_a) screen.line("Only first", one_line(recipe, 400));
  for (const std::string& recipe : comparison.only_b) screen.line("Only second", one_line(recipe, 400));
  return screen.take();
}

Limit parse_limit(const std::string& text) {
  const std::size_t at = text.find_first_of("<>");
  const std::string prefix = "delta.";
  Limit limit;
  limit.text = text;
  bool good = at != std::string::npos && at > 0;
  if (good) {
    limit.field = text.substr(0, at);
    limit.above = text[at] == '>';
    if (limit.field.rfind(prefix, 0) == 0) {
      limit.delta = true;
      limit.field.erase(0, prefix.size());
    }
    const char* end = text.data() + text.size();
    const auto [last, error] = std::from_chars(text.data() + at + 1, end, limit.value);
    good = !limit.field.empty() && error == std::errc() && last == end && std::isfinite(limit.value);
  }
  if (!good)
    throw InputError(
        fmt::format("--fail-if: expected a condition such as kl_mean>0.01 or delta.kl_mean>0.001, found {}",
                    one_line(text, 80)));
  return limit;
}

std::vector<std::string> broken_limits(const Limit& limit, const Json& a, const Json& b) {
  const auto value_of = [&](const Json& row) {
    const auto found = row.find(limit.field);
    if (found == row.end() || !(found->is_number() || found->is_null()))
      throw InputError(fmt::format("--fail-if: expected a number of the rows, such as kl_mean, found {}",
                                   one_line(limit.field, 80)));
    return number_at(row, limit.field.c_str());
  };
  std::vector<std::string> broken;
  for (const Json& row : rows_of(b)) {
    double value = value_of(row);
    const std::string recipe = text_at(row, "recipe");
    if (!limit.delta && text_is(row, "effect", "baseline") && rows_of(b).size() > 1) continue;
    if (limit.delta) {
      const Json* before = find_row(a, recipe);
      if (!before) continue;
      value -= value_of(*before);
    }
    // A figure that is missing does not pass.
    const bool fails = std::isnan(value) || (limit.above ? value > limit.value : value < limit.value);
    if (fails)
      broken.push_back(fmt::format("{}: {}{} is {}", one_line(recipe, 200), limit.delta ? "delta." : "",
                                   limit.field, format_significant(value, 6)));
  }
  return broken;
}

}  // namespace kva
