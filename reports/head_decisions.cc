#include "reports/head_decisions.h"

#include <fmt/format.h>
#include <fmt/ranges.h>

#include <map>
#include <nlohmann/json.hpp>
#include <numeric>

#include "kernels/check.h"
#include "reports/ab_view.h"
#include "reports/text_format.h"

namespace kva {
namespace {

constexpr double kMega = 1e6;

double percent_saved(double raw, double compressed) {
  return raw > 0 ? 100.0 * (1.0 - compressed / raw) : 0.0;
}

struct LayerHeads {
  std::map<std::string, int> policies;
  double before = 0;
  double after = 0;
};

}  // namespace

std::string decision_line(const HeadDecision& decision) {
  std::vector<std::string> quoted;
  for (const std::string& policy : decision.policies) quoted.push_back("'" + policy + "'");
  return fmt::format("layer_id:{}(heads:{})->[{}]-> kv cache len:{}->{}", decision.layer, decision.kv_head,
                     fmt::join(quoted, ","), decision.tokens_before, decision.tokens_after);
}

nlohmann::ordered_json decisions_json(std::span<const HeadDecision> decisions) {
  Json heads = Json::array();
  for (const HeadDecision& of : decisions)
    heads.push_back({{"layer", of.layer},
                     {"kv_head", of.kv_head},
                     {"policies", of.policies},
                     {"tokens_before", of.tokens_before},
                     {"tokens_after", of.tokens_after}});
  return heads;
}

std::string layer_bytes_csv(std::span<const double> raw_bytes, std::span<const double> compressed_bytes) {
  KVA_CHECK(raw_bytes.size() == compressed_bytes.size() && !raw_bytes.empty(), "as many layers");
  const auto row = [](const std::string& name, double raw, double compressed) {
    return fmt::format("{},{:.3f},{:.3f},{:.3f}\n", name, raw / kMega, compressed / kMega,
                       percent_saved(raw, compressed));
  };
  const auto mean = [](std::span<const double> of) {
    return std::accumulate(of.begin(), of.end(), 0.0) / static_cast<double>(of.size());
  };
  std::string text = "layer_id,raw MB,compressed MB,ratio %\n";
  text += row("average", mean(raw_bytes), mean(compressed_bytes));
  for (std::size_t layer = 0; layer < raw_bytes.size(); ++layer)
    text += row(fmt::format("layer{}", layer), raw_bytes[layer], compressed_bytes[layer]);
  return text;
}

Table ab_heads_table(const nlohmann::ordered_json& report) {
  Table table{
      "ab-heads",
      "Policies of heads",
      "What each layer's KV heads were told at the end of the last window's context, and the tokens "
      "that they keep of it, on average over its heads.",
      {{"recipe", false}, {"layer"}, {"heads and their policies", false}, {"tokens"}, {"kept"}, {"kept %"}},
      {}};
  for (const Json& row : ab_rows(report)) {
    const Json& codec = row.at("codec");
    if (codec.is_null() || !codec.contains("heads")) continue;
    std::map<int, LayerHeads> layers;
    for (const Json& head : codec.at("heads")) {
      LayerHeads& of = layers[static_cast<int>(number_at(head, "layer"))];
      std::string policies;
      for (const Json& policy : head.at("policies"))
        policies += (policies.empty() ? "" : " + ") + policy.get<std::string>();
      ++of.policies[policies];
      of.before += number_at(head, "tokens_before");
      of.after += number_at(head, "tokens_after");
    }
    for (const auto& [layer, of] : layers) {
      std::string policies;
      int heads = 0;
      for (const auto& [name, count] : of.policies) {
        policies += fmt::format("{}{} × {}", policies.empty() ? "" : "; ", count, name);
        heads += count;
      }
      const double kept = of.before > 0 ? of.after / of.before : 1.0;
      table.rows.push_back({{text_at(row, "recipe")},
                            {fmt::format("{}", layer), static_cast<double>(layer)},
                            {policies},
                            {format_count(of.before / heads), of.before / heads},
                            {format_count(of.after / heads), of.after / heads},
                            {fmt::format("{:.1f}%", 100.0 * kept), 100.0 * kept}});
    }
  }
  return table;
}

}  // namespace kva
