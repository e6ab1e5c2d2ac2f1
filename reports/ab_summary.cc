#include "reports/ab_summary.h"

#include <fmt/format.h>

#include <algorithm>
#include <array>
#include <cmath>
#include <nlohmann/json.hpp>

#include "reports/ab_tables.h"
#include "reports/ab_view.h"
#include "reports/report_view.h"
#include "reports/screen_table.h"
#include "reports/text_format.h"

namespace kva {
namespace {

// Names short enough for a terminal, without the effect, which has a line of its own where there is none.
Table shown_rows(const Json& report) {
  Table table = ab_table(report);
  table.columns.pop_back();
  for (auto& row : table.rows) row.pop_back();
  constexpr std::array<const char*, 9> kNames = {"held", "bits", "÷",     "ppl",  "Δ ppl",
                                                 "KL",   "99%",  "top-1", "tok/s"};
  for (std::size_t c = 1; c < table.columns.size(); ++c) table.columns[c].name = kNames[c - 1];
  return table;
}

void without_effect(const Json& report, Screen& screen) {
  std::string recipes;
  for (const Json& row : report.at("ab").at("rows"))
    if (text_is(row, "effect", "no effect"))
      recipes += (recipes.empty() ? "" : " · ") + one_line(text_at(row, "recipe"), 200);
  if (!recipes.empty()) screen.line("No effect", recipes);
}

void noise(const Json& report, Screen& screen) {
  std::string text;
  for (const Json& row : report.at("ab").at("noise_floor"))
    text += fmt::format("{}mean KL {} ({}, steps of {})", text.empty() ? "" : " · ",
                        format_significant(number_at(row, "kl_mean")), one_line(text_at(row, "recipe"), 30),
                        format_count(number_at(row, "chunk_tokens")));
  screen.line("Noise floor", text);
}

void passkey(const Json& report, Screen& screen) {
  const Json* found = passkey_of(report);
  if (!found) return;
  std::string text =
      fmt::format("{} of {} cells informative", format_count(number_at(*found, "informative_cells")),
                  found->at("cells").size());
  if (number_at(*found, "informative_cells") > 0)
    for (const Json& row : found->at("rows"))
      text += fmt::format(" · {} {}", one_line(text_at(row, "recipe"), 24),
                          format_share(number_at(row, "accuracy")));
  screen.line("Passkey", text);
}

void closing(const Json& report, Screen& screen) {
  const Json& ab = report.at("ab");
  screen.line("Time", fmt::format("evaluation {} · speed runs {} · {} in all · process peak {}",
                                  format_seconds(number_at(ab.at("timing"), "evaluation_s")),
                                  format_seconds(number_at(ab.at("timing"), "timing_s")),
                                  format_seconds(number_at(report.at("provenance"), "duration_s")),
                                  format_bytes(number_at(ab.at("memory"), "peak_process_bytes"))));
}

}  // namespace

void ab_section_summary(const Json& report, Screen& screen) {
  const Json& protocol = report.at("ab").at("protocol");
  screen.heading("Compressed inside the decoder",
                 fmt::format("{} scored tokens behind {} of context, against dense f32",
                             format_count(number_at(protocol, "tokens")),
                             format_count(std::floor(number_at(protocol, "context") / 2))));
  add_table(shown_rows(report), screen);
  without_effect(report, screen);
}

void ab_summary(const Json& report, Screen& screen) {
  for (const std::string& sentence : ab_protocol_sentences(report)) {
    screen.add(sentence, kDim);
    screen.end();
  }
  screen.end();
  add_table(shown_rows(report), screen);
  screen.end();
  without_effect(report, screen);
  noise(report, screen);
  passkey(report, screen);
  closing(report, screen);
}

}  // namespace kva
