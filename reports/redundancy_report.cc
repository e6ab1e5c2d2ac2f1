#include "reports/redundancy_report.h"

#include <fmt/format.h>

#include <nlohmann/json.hpp>

#include "reports/redundancy_json.h"
#include "reports/text_format.h"
#include "runtime/clock.h"
#include "runtime/error.h"
#include "runtime/interrupt.h"

namespace kva {

using nlohmann::ordered_json;

std::shared_ptr<Backend> analysis_backend(RunDevice device, const DeviceChoice& choice, const PageSet& pages,
                                          const RedundancyOptions& analysis, const Say& say) {
  const auto needs = [&](const RunDevice& chosen) {
    const int64_t needed = redundancy_device_bytes(pages, analysis);
    const int64_t free = chosen.ops->memory().free_bytes;
    if (needed > free)
      throw InputError(
          fmt::format("analysis: needs about {} MiB of the GPU's memory, {} MiB are free; analyse fewer "
                      "prompts (--limit), shorter ones (--max-context), or use --device cpu",
                      needed >> 20, free >> 20));
  };
  device = settled(std::move(device), choice, needs, say);
  return device.ops ? make_device_backend(device.ops) : nullptr;
}

RedundancyReport make_redundancy_report(const PageSet& pages, const ordered_json& facts,
                                        const RedundancyOptions& analysis, const RunStamp& stamp,
                                        ThreadPool& pool, Progress& progress) {
  const auto start = Clock::now();
  bool started = false;
  const auto on_progress = [&](int64_t done, int64_t total, std::string_view) {
    throw_if_interrupted();
    if (!started) progress.stage("similarity", total, "pairs");
    started = true;
    progress.update(done);
  };
  const auto on_estimate = [&](double seconds) {
    constexpr double kWorthSaying_s = 10.0;
    if (seconds >= kWorthSaying_s)
      progress.say(fmt::format("similarity: {} pages, about {}", format_count(pages.page_count()),
                               format_seconds(seconds)));
  };
  const RedundancyResult result = analyze_redundancy(pages, analysis, pool, on_progress, on_estimate);
  progress.finish();
  if (result.products != analysis.products)
    progress.say(fmt::format("similarity: products in f32: this processor does not multiply {}",
                             dtype_name(analysis.products)));
  const double analysis_s = seconds_since(start);

  RedundancyReport report;
  ordered_json options = facts.at("options");
  options["clusters"] = analysis.clusters;
  options["similarity_dtype"] = dtype_name(analysis.products);
  report.json = report_frame("redundancy", stamp, pool.threads(), analysis.seed,
                             facts.at("recipe").get<std::string>(), options);
  ordered_json& json = report.json;
  json["provenance"]["analysis_device"] =
      analysis.device ? fmt::format("cuda ({})", analysis.device->device()->name()) : "cpu";
  for (const char* part : {"model", "sets", "prompts", "cache", "timing"}) json[part] = facts.at(part);
  json["timing"]["analysis_s"] = analysis_s;
  json["timing"]["analysis_estimated_s"] = result.estimated_s;
  json["timing"]["pairs"] = result.pairs;
  json["timing"]["pairs_per_s"] = analysis_s > 0 ? static_cast<double>(result.pairs) / analysis_s : 0.0;
  const ordered_json analysis_json = to_json(result);
  for (const auto& [key, value] : analysis_json.items()) json[key] = value;
  report.partners_csv = partners_csv(result);
  return report;
}

}  // namespace kva
