#include "reports/compress_json.h"

#include <fmt/format.h>

#include <limits>
#include <nlohmann/json.hpp>

#include "reports/capture_run.h"
#include "reports/codec_json.h"
#include "reports/json_number.h"

namespace kva {
namespace {

using nlohmann::ordered_json;

double ratio(double a, double b) { return b > 0 ? a / b : std::numeric_limits<double>::quiet_NaN(); }

int64_t values_of(const PageSet& pages) {
  return pages.page_count() * pages.page_values() * 2 * pages.layers;
}

ordered_json capture_json(const CompressFacts& facts) {
  const PageSet& pages = facts.replay.pages();
  const int64_t values = values_of(pages);
  return {{"folder", facts.options.capture},
          {"prompts", pages.prompts.size()},
          {"pages", pages.page_count()},
          {"tokens", pages.page_count() * pages.page_tokens},
          {"page_tokens", pages.page_tokens},
          {"dtype", dtype_name(pages.dtype)},
          {"key_basis", key_basis_name(pages.key_basis)},
          {"values", values},
          {"bytes", values * dtype_bytes(pages.dtype)},
          {"dense_f16_bytes", values * 2}};
}

ordered_json bytes_json(const CompressFacts& facts) {
  const ByteLedger ledger = facts.replay.cache().ledger();
  const auto held = static_cast<double>(ledger.held());
  const auto values = static_cast<double>(values_of(facts.replay.pages()));
  const CompressorStats stats = facts.replay.stats();
  return {{"bytes_held", ledger.held()},
          {"bits_per_value", rounded(ratio(8.0 * held, values))},
          {"compression", rounded(ratio(2.0 * values, held))},
          {"ledger", ledger_json(ledger)},
          {"appended_bytes", facts.replay.appended_bytes()},
          {"predicted_bytes", facts.replay.appended_bytes() - stats.predicted_bytes},
          {"achieved_bytes", ledger.payload + ledger.scales},
          {"sides", facts.stored.sides()},
          {"refs", facts.stored.refs()}};
}

// What the files hold, and, once they are written, what they take.
ordered_json files_json(const CompressFacts& facts) {
  ordered_json parts = ordered_json::array();
  int64_t raw_bytes = 0;
  int64_t disk_bytes = 0;
  for (const StoredFile& file : facts.files) {
    parts.push_back(
        {{"name", file.name}, {"raw_bytes", file.facts.raw_bytes}, {"disk_bytes", file.facts.bytes}});
    raw_bytes += file.facts.raw_bytes;
    disk_bytes += file.facts.bytes;
  }
  const bool written = !facts.files.empty();
  if (!written) {
    for (const StoredPart part : kStoredParts) {
      const int64_t raw = facts.stored.raw_bytes(part);
      parts.push_back({{"name", stored_file_name(part, facts.options.zstd_level)},
                       {"raw_bytes", raw},
                       {"disk_bytes", nullptr}});
      raw_bytes += raw;
    }
  }
  const auto dense = 2.0 * static_cast<double>(values_of(facts.replay.pages()));
  return {{"zstd_level", facts.options.zstd_level},
          {"raw_bytes", raw_bytes},
          {"disk_bytes", written ? ordered_json(disk_bytes) : ordered_json(nullptr)},
          {"disk_compression",
           written ? rounded(ratio(dense, static_cast<double>(disk_bytes))) : ordered_json(nullptr)},
          {"parts", std::move(parts)}};
}

ordered_json error_json(const NumberError& error) {
  return {{"relative_l2", rounded(error.relative_l2())}, {"max_abs", rounded(error.max_abs)}};
}

ordered_json errors_json(const CompressFacts& facts) {
  if (facts.errors.empty()) return nullptr;
  LayerErrors all;
  for (const LayerErrors& layer : facts.errors) {
    all.k.add(layer.k);
    all.v.add(layer.v);
    all.attention.add(layer.attention);
  }
  return {{"k", error_json(all.k)},
          {"v", error_json(all.v)},
          {"attention", error_json(all.attention)},
          {"queries", "captured keys"},
          {"queries_per_head", kStandInQueries}};
}

ordered_json layers_json(const CompressFacts& facts) {
  ordered_json rows = ordered_json::array();
  const std::vector<double> bytes = facts.replay.cache().bytes_by_layer();
  for (std::size_t layer = 0; layer < bytes.size(); ++layer) {
    ordered_json row = {{"layer", layer}, {"bytes", rounded(bytes[layer], 12)}};
    const LayerErrors* errors = facts.errors.empty() ? nullptr : &facts.errors[layer];
    row["k"] = errors ? error_json(errors->k) : ordered_json(nullptr);
    row["v"] = errors ? error_json(errors->v) : ordered_json(nullptr);
    row["attention"] = errors ? error_json(errors->attention) : ordered_json(nullptr);
    rows.push_back(std::move(row));
  }
  return rows;
}

ordered_json codecs_json(const CompressFacts& facts) {
  ordered_json rows = ordered_json::array();
  for (const CodecShare& share : facts.stored.by_codec())
    rows.push_back({{"name", share.name}, {"sides", share.sides}, {"bytes", share.bytes}});
  return rows;
}

}  // namespace

ordered_json compression_json(const CompressFacts& facts) {
  ordered_json json;
  json["recipe"] = facts.replay.recipe().text();
  json["stored_basis"] = key_basis_name(facts.replay.stored_basis());
  json["learnt_from"] = facts.learnt_from.empty() ? ordered_json(nullptr) : ordered_json(facts.learnt_from);
  json["dry_run"] = facts.options.dry_run;
  json["capture"] = capture_json(facts);
  json["bytes"] = bytes_json(facts);
  json["files"] = files_json(facts);
  json["errors"] = errors_json(facts);
  json["layers"] = layers_json(facts);
  json["codecs"] = codecs_json(facts);
  json["codec"] = codec_json(facts.replay.stats());
  json["timing"] = {{"compress_s", rounded(facts.compress_s)},
                    {"errors_s", rounded(facts.errors_s)},
                    {"write_s", rounded(facts.write_s)}};
  return json;
}

std::vector<Definition> compression_definitions() {
  return {
      {"bytes_held",
       "Payload, scales, side data, tables and slack of a cache that holds all full pages of the capture "
       "after the "
       "recipe: what a decoder's memory would hold of them."},
      {"disk_bytes",
       "What the compressed capture takes on disk, its manifest included and this report not: another number "
       "than "
       "bytes held, without slack and after zstd."},
      {"raw_bytes", "The same files before zstd."},
      {"bits_per_value", "8 × bytes held ÷ K and V numbers of the captured pages."},
      {"compression", "Dense f16 bytes of the captured pages ÷ bytes held."},
      {"predicted_bytes",
       "Payload and scales as the plans of the methods said before they were applied; achieved_bytes is what "
       "the "
       "ledger then showed."},
      {"relative_l2",
       "‖x − x̂‖ ÷ ‖x‖ over all numbers, x as captured, x̂ as read back; K in the capture's key basis."},
      {"max_abs", "The largest |x − x̂|."},
      {"attention",
       fmt::format(
           "The same of attention's output. A capture has no queries: keys of up to {} tokens of each prompt "
           "and KV head stand in for them, evenly apart and causal. Good to compare recipes on one capture; "
           "it is not the error that the model would make.",
           kStandInQueries)},
      {"sides", "Stored K or V sides of pages, those that others build on included."},
      {"refs", "K and V sides that the pages refer to: more than sides where pages share."},
  };
}

}  // namespace kva
