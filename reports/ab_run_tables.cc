// Tables of what an A/B run used, and of what its recipes make of memory.
#include <fmt/format.h>

#include <cmath>
#include <nlohmann/json.hpp>

#include "reports/ab_tables.h"
#include "reports/ab_view.h"
#include "reports/text_format.h"

namespace kva {
namespace {

Cell text(std::string value) { return {std::move(value)}; }
Cell count_of(const Json& row, const char* key) {
  const double value = number_at(row, key);
  return {format_count(value), value};
}
Cell bytes_of(const Json& row, const char* key) {
  const double value = number_at(row, key);
  return {format_bytes(value), value};
}

std::string counters_line(const Json& codec) {
  std::string line;
  if (const auto counters = codec.find("counters"); counters != codec.end())
    for (const auto& [name, value] : counters->items())
      line += fmt::format("{}{} {}", line.empty() ? "" : "; ", name,
                          value.is_number_integer() || value.get<double>() == std::floor(value.get<double>())
                              ? format_count(value.get<double>())
                              : format_significant(value.get<double>()));
  return line.empty() ? "–" : line;
}

std::string text_line(const Json& used) {
  const std::string file = text_at(used, "file");
  return fmt::format("{}: {} tokens, {}", file.empty() ? "built-in general prompts" : file,
                     format_count(number_at(used, "tokens")), text_at(used, "hash"));
}

}  // namespace

Table ab_codec_table(const Json& report) {
  Table table{
      "ab-codec",
      "Encoding",
      "Pages that plans encoded over all windows, a second encoding counted again; predicted: what the plans "
      "said they would free. Observing: time within attention for what a method asked to be told. Counted: "
      "what "
      "methods say of themselves, over all windows, layers and KV heads.",
      {{"recipe", false},
       {"plans"},
       {"page sides"},
       {"numbers"},
       {"predicted"},
       {"freed"},
       {"codec time"},
       {"GB/s"},
       {"observing"},
       {"counted", false},
       {"remarks", false}},
      {}};
  for (const Json& row : ab_rows(report)) {
    const Json& codec = row.at("codec");
    if (codec.is_null() || number_at(codec, "plans") == 0) continue;
    std::string remarks;
    for (const Json& remark : codec.at("remarks"))
      remarks += (remarks.empty() ? "" : "; ") + remark.get<std::string>();
    const double seconds = number_at(codec, "seconds"), speed = number_at(codec, "gb_per_s"),
                 observed = number_at(codec, "observe_seconds");
    table.rows.push_back({text(text_at(row, "recipe")),
                          count_of(codec, "plans"),
                          count_of(codec, "sides"),
                          count_of(codec, "values"),
                          bytes_of(codec, "predicted_bytes"),
                          bytes_of(codec, "freed_bytes"),
                          {format_seconds(seconds), seconds},
                          {format_significant(speed), speed},
                          {format_seconds(observed), observed},
                          text(counters_line(codec)),
                          text(remarks.empty() ? "–" : remarks)});
  }
  return table;
}

Table ab_capacity_table(const Json& report) {
  const double positions = number_at(report.at("model"), "max_positions");
  Table table{
      "ab-capacity",
      "What the memory buys",
      "What a budget for the cache alone holds at the measured bytes of a token, side data charged once a "
      "sequence: the tokens of one sequence, and sequences of a window's length at its measured bytes. "
      "Weights and workspace come on top.",
      {{"recipe", false}, {"bytes/token"}, {"side data"}},
      {}};
  table.caption +=
      fmt::format(" The model is made for contexts of up to {} tokens.", format_count(positions));
  const Json& first = ab_rows(report).front().at("capacity");
  for (const Json& budget : first.at("budgets")) {
    const std::string size = fmt::format("{:g} GiB", number_at(budget, "budget_bytes") / 1073741824.0);
    table.columns.push_back({"tokens in " + size});
    table.columns.push_back(
        {fmt::format("× {} tokens in {}", format_count(number_at(first, "sequence_tokens")), size)});
  }
  for (const Json& row : ab_rows(report)) {
    const Json& capacity = row.at("capacity");
    const double per_token = number_at(capacity, "bytes_per_token");
    std::vector<Cell> cells = {text(text_at(row, "recipe")),
                               {format_count(per_token), per_token},
                               bytes_of(capacity, "fixed_bytes")};
    for (const Json& budget : capacity.at("budgets")) {
      cells.push_back(count_of(budget, "tokens"));
      cells.push_back(count_of(budget, "sequences"));
    }
    cells.resize(table.columns.size());
    table.rows.push_back(std::move(cells));
  }
  return table;
}

Table ab_run_table(const Json& report) {
  const Json& ab = report.at("ab");
  const Json& protocol = ab.at("protocol");
  const Json& memory = ab.at("memory");
  Table table{"ab-run", "Text, memory and time", "", {{"", false}, {"", false}}, {}};
  const auto add = [&](const char* name, const std::string& value) {
    table.rows.push_back({text(name), text(value)});
  };
  add("Text", text_line(ab.at("text")));
  add("Calibration", text_line(ab.at("calibration")));
  add("Windows",
      fmt::format("{} of {} tokens, {} scored in all, in steps of {}",
                  format_count(number_at(protocol, "windows")), format_count(number_at(protocol, "context")),
                  format_count(number_at(protocol, "tokens")),
                  format_count(number_at(protocol, "chunk_tokens"))));
  add("Turns", format_count(number_at(protocol, "turns")));
  add("Page", fmt::format("{} tokens", format_count(number_at(protocol, "page_size"))));
  add("Bootstrap",
      fmt::format("{} resamples of blocks of {} tokens", format_count(number_at(protocol, "resamples")),
                  format_count(number_at(protocol, "block_tokens"))));
  add("Weights, decoder's workspace",
      fmt::format("{}, {}", format_bytes(number_at(memory, "weight_bytes")),
                  format_bytes(number_at(memory, "decoder_workspace_bytes"))));
  add("Process peak", format_bytes(number_at(memory, "peak_process_bytes")));
  if (const std::string on_device = device_memory_line(memory, "device"); !on_device.empty())
    add("GPU memory", on_device);
  const Json& timing = ab.at("timing");
  add("Load", format_seconds(number_at(timing, "load_s")));
  add("Evaluation", format_seconds(number_at(timing, "evaluation_s")));
  add("Speed runs", format_seconds(number_at(timing, "timing_s")));
  return table;
}

}  // namespace kva
