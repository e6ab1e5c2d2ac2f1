#include "reports/compress_tables.h"

#include <fmt/format.h>

#include <nlohmann/json.hpp>

#include "reports/ab_view.h"
#include "reports/report_view.h"
#include "reports/screen_table.h"
#include "reports/text_format.h"

namespace kva {
namespace {

Cell text(std::string value) { return {std::move(value)}; }
Cell count(double value) { return {format_count(value), value}; }
Cell bytes(double value) { return {format_bytes(value), value}; }
Cell significant(double value) { return {format_significant(value), value}; }

const Json& of(const Json& report) { return report.at("compression"); }

void add_error_cells(const Json& holder, std::vector<Cell>& row) {
  for (const char* key : {"k", "v", "attention"}) {
    row.push_back(significant(number_at(holder.at(key), "relative_l2")));
    row.push_back(significant(number_at(holder.at(key), "max_abs")));
  }
}

}  // namespace

Table compress_bytes_table(const Json& report) {
  const Json& held = of(report).at("bytes");
  Table table{"bytes",
              "Bytes held",
              "What a cache with these pages holds in memory.",
              {{"part", false}, {"bytes"}},
              {}};
  for (const auto& [key, name] : kHeldParts)
    table.rows.push_back({text(name), bytes(number_at(held.at("ledger"), key))});
  table.rows.push_back({text("held"), bytes(number_at(held, "bytes_held"))});
  table.rows.push_back({text("dense f16"), bytes(number_at(of(report).at("capture"), "dense_f16_bytes"))});
  return table;
}

Table compress_files_table(const Json& report) {
  const Json& files = of(report).at("files");
  Table table{"files",
              "Bytes on disk",
              "The files of the compressed capture, before and after zstd.",
              {{"file", false}, {"raw"}, {"on disk"}},
              {}};
  for (const Json& part : files.at("parts"))
    table.rows.push_back({text(text_at(part, "name")), bytes(number_at(part, "raw_bytes")),
                          bytes(number_at(part, "disk_bytes"))});
  table.rows.push_back(
      {text("all"), bytes(number_at(files, "raw_bytes")), bytes(number_at(files, "disk_bytes"))});
  return table;
}

Table compress_error_table(const Json& report) {
  Table table{
      "errors",
      "Errors by layer",
      "Relative L2 and largest absolute error. Captured keys stand in for the queries of attention: good to "
      "compare recipes on one capture, not the error that the model would make.",
      {{"layer", false}, {"bytes"}, {"K"}, {"K max"}, {"V"}, {"V max"}, {"attention"}, {"attention max"}},
      {}};
  const Json& errors = of(report).at("errors");
  if (errors.is_null()) return table;
  double sum = 0;
  for (const Json& layer : of(report).at("layers")) sum += number_at(layer, "bytes");
  std::vector<Cell> all = {text("all"), bytes(sum)};
  add_error_cells(errors, all);
  table.rows.push_back(std::move(all));
  for (const Json& layer : of(report).at("layers")) {
    std::vector<Cell> row = {count(number_at(layer, "layer")), bytes(number_at(layer, "bytes"))};
    add_error_cells(layer, row);
    table.rows.push_back(std::move(row));
  }
  return table;
}

Table compress_codec_table(const Json& report) {
  Table table{"codecs",
              "How sides are stored",
              "Sides and their payload with scales, by codec.",
              {{"codec", false}, {"sides"}, {"bytes"}},
              {}};
  for (const Json& codec : of(report).at("codecs"))
    table.rows.push_back(
        {text(text_at(codec, "name")), count(number_at(codec, "sides")), bytes(number_at(codec, "bytes"))});
  return table;
}

std::vector<std::string> compress_sentences(const Json& report) {
  const Json& all = of(report);
  const Json& capture = all.at("capture");
  const Json& held = all.at("bytes");
  std::vector<std::string> sentences;
  sentences.push_back(
      fmt::format("{} pages of {} tokens, prompts: {}, {} as captured ({}, {} keys); {} keys stored.",
                  format_count(number_at(capture, "pages")), format_count(number_at(capture, "page_tokens")),
                  format_count(number_at(capture, "prompts")), format_bytes(number_at(capture, "bytes")),
                  text_at(capture, "dtype"), text_at(capture, "key_basis"), text_at(all, "stored_basis")));
  sentences.push_back(fmt::format("Held in memory: {}, {} bits a number, {}x less than dense f16.",
                                  format_bytes(number_at(held, "bytes_held")),
                                  format_number(number_at(held, "bits_per_value")),
                                  format_number(number_at(held, "compression"), 2)));
  sentences.push_back(fmt::format("Payload and scales: {} predicted, {} achieved.",
                                  format_bytes(number_at(held, "predicted_bytes")),
                                  format_bytes(number_at(held, "achieved_bytes"))));
  if (all.at("dry_run") == true) {
    sentences.push_back("Dry run: nothing was written, and no error measured.");
  } else {
    const Json& files = all.at("files");
    sentences.push_back(fmt::format(
        "On disk: {}, {}x less than dense f16 (zstd {}; {} before it).",
        format_bytes(number_at(files, "disk_bytes")), format_number(number_at(files, "disk_compression"), 2),
        format_count(number_at(files, "zstd_level")), format_bytes(number_at(files, "raw_bytes"))));
  }
  if (!all.at("learnt_from").is_null())
    sentences.push_back(fmt::format("Codebooks were learnt from {}.", text_at(all, "learnt_from")));
  for (const Json& remark : all.at("codec").at("remarks")) sentences.push_back(remark.get<std::string>());
  return sentences;
}

void compress_summary(const Json& report, Screen& screen) {
  screen.line("Recipe", one_line(text_at(of(report), "recipe"), 400));
  for (const std::string& sentence : compress_sentences(report)) {
    screen.add(one_line(sentence, 400));
    screen.end();
  }
  for (const Table& table : {compress_bytes_table(report), compress_files_table(report),
                             compress_codec_table(report), compress_error_table(report)}) {
    if (table.rows.empty()) continue;
    screen.heading(table.title, "");
    add_table(table, screen);
  }
}

std::string compress_markdown(const Json& report) {
  std::string out = "# Compressed KV-cache capture of " +
                    escape_markdown(text_at(report.at("model"), "name")) +
                    "\n\nMade from `report.json`, which has every number.\n\n`" +
                    escape_markdown(text_at(of(report), "recipe")) + "`\n\n";
  for (const std::string& sentence : compress_sentences(report)) out += escape_markdown(sentence) + "\n\n";
  Table identity = identity_table(report);
  identity.columns = {{"what", false}, {"value", false}};
  for (const Table& table :
       {compress_bytes_table(report), compress_files_table(report), compress_error_table(report),
        compress_codec_table(report), identity, definition_table(report), option_table(report)}) {
    if (table.rows.empty()) continue;
    out += "## " + escape_markdown(table.title) + "\n\n";
    if (!table.caption.empty()) out += escape_markdown(table.caption) + "\n\n";
    out += to_markdown(table) + "\n";
  }
  out.pop_back();
  return out;
}

std::string compress_html(const PageSource& source) {
  const Json& report = source.report;
  // Tables only: Plotly would have nothing to draw.
  static const std::string kNoPlotly;
  const PageSource plain{report, source.plots, source.png_bytes, kNoPlotly};
  HtmlPage page(plain);
  page.open("result", "Result", "Result");
  page.paragraph(text_at(of(report), "recipe"));
  for (const std::string& sentence : compress_sentences(report)) page.paragraph(sentence);
  page.close();
  page.table_section(compress_bytes_table(report), "bytes", "Bytes held");
  page.table_section(compress_files_table(report), "files", "Bytes on disk");
  page.table_section(compress_error_table(report), "errors", "Errors");
  page.table_section(compress_codec_table(report), "codecs", "Codecs");
  page.table_section(identity_table(report), "run", "Run");
  page.table_section(definition_table(report), "definitions", "Terms");
  page.table_section(option_table(report), "options", "Options");
  return page.finish({"Compressed KV-cache capture of " + text_at(report.at("model"), "name"),
                      "kvanalyze · what a recipe makes of captured pages",
                      "",
                      {}});
}

}  // namespace kva
