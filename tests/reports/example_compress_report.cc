#include <nlohmann/json.hpp>

#include "tests/reports/example_report.h"

namespace kva {
namespace {

using Json = nlohmann::ordered_json;

Json error(double relative_l2, double max_abs) {
  return {{"relative_l2", relative_l2}, {"max_abs", max_abs}};
}

}  // namespace

Json example_compress_report(bool dry_run) {
  const Json frame = example_report({.layers = 2});
  Json report = {{"schema", "kvanalyze.report"}, {"schema_version", 1}, {"kind", "compression"}};
  for (const char* member : {"provenance", "model"}) report[member] = frame[member];
  report["definitions"] = {{"bytes_held", "What memory would hold."}};
  Json& json = report["compression"];
  json["recipe"] = "nuq(bits=4)";
  json["stored_basis"] = "rotated";
  json["learnt_from"] = "the capture itself";
  json["dry_run"] = dry_run;
  json["capture"] = {{"folder", "capture"},
                     {"prompts", 3},
                     {"pages", 40},
                     {"tokens", 640},
                     {"page_tokens", 16},
                     {"dtype", "f16"},
                     {"key_basis", "rotated"},
                     {"values", 163840},
                     {"bytes", 327680},
                     {"dense_f16_bytes", 327680}};
  json["bytes"] = {{"bytes_held", 106496},
                   {"bits_per_value", 5.2},
                   {"compression", 3.0769},
                   {"ledger",
                    {{"payload", 81920},
                     {"scales", 10240},
                     {"side", 2048},
                     {"tables", 4096},
                     {"slack", 8192},
                     {"workspace", 512},
                     {"peak", 120000},
                     {"held", 106496}}},
                   {"appended_bytes", 327680},
                   {"predicted_bytes", 92160},
                   {"achieved_bytes", 92160},
                   {"sides", 320},
                   {"refs", 320}};
  json["files"] = {
      {"zstd_level", 3}, {"raw_bytes", 98560}, {"disk_bytes", 80000}, {"disk_compression", 4.096}};
  json["files"]["parts"] = {{{"name", "payload.bin.zst"}, {"raw_bytes", 92160}, {"disk_bytes", 75000}},
                            {{"name", "refs.bin.zst"}, {"raw_bytes", 6400}, {"disk_bytes", 5000}}};
  json["errors"] = {{"k", error(0.051, 0.75)},
                    {"v", error(0.093, 0.25)},
                    {"attention", error(0.102, 0.5)},
                    {"queries", "captured keys"},
                    {"queries_per_head", 64}};
  json["layers"] = Json::array();
  for (int layer = 0; layer < 2; ++layer)
    json["layers"].push_back({{"layer", layer},
                              {"bytes", 46080},
                              {"k", error(0.05 + layer * 0.01, 0.75)},
                              {"v", error(0.09, 0.25)},
                              {"attention", error(0.1, 0.5)}});
  json["codecs"] = {{{"name", "nuq(bits=4,outliers=0.01,axes=token)"}, {"sides", 320}, {"bytes", 92160}}};
  json["codec"] = {{"plans", 40},           {"sides", 320},
                   {"values", 163840},      {"predicted_bytes", 235520},
                   {"freed_bytes", 235520}, {"seconds", 0.2},
                   {"gb_per_s", 0.0016},    {"remarks", {"each later trigger decodes and encodes again"}}};
  json["timing"] = {{"compress_s", 0.3}, {"errors_s", 0.1}, {"write_s", 0.05}};
  if (!dry_run) return report;
  json["errors"] = nullptr;
  for (const char* member : {"disk_bytes", "disk_compression"}) json["files"][member] = nullptr;
  for (Json& part : json["files"]["parts"]) part["disk_bytes"] = nullptr;
  for (Json& layer : json["layers"])
    for (const char* member : {"k", "v", "attention"}) layer[member] = nullptr;
  return report;
}

}  // namespace kva
