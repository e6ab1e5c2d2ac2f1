#include "reports/compress_run.h"

#include <fmt/format.h>

#include <nlohmann/json.hpp>
#include <optional>

#include "compressors/compressed_capture.h"
#include "compressors/replay.h"
#include "reports/compress_json.h"
#include "reports/replay_errors.h"
#include "reports/report_file.h"
#include "runtime/backend/host_memory.h"
#include "runtime/clock.h"
#include "runtime/error.h"
#include "runtime/interrupt.h"
#include "runtime/kv/capture.h"

namespace kva {
namespace {

using nlohmann::ordered_json;

int64_t tokens_of(const PageSet& pages) { return pages.page_count() * pages.page_tokens; }

void check_memory(const PageSet& pages, const std::string& source) {
  const int64_t needed =
      pages.page_count() * pages.page_values() * dtype_bytes(pages.dtype) * 2 * pages.layers;
  const int64_t available = host_memory().available_bytes;
  if (needed > available)
    throw InputError(fmt::format(
        "{}: its pages need up to {} MiB of memory, {} MiB are free; capture fewer or shorter prompts",
        source, needed >> 20, available >> 20));
}

ordered_json options_json(const CompressOptions& options) {
  return {{"capture", options.capture},         {"recipe", options.recipe},
          {"calibration", options.calibration}, {"output_dir", options.output_dir},
          {"zstd_level", options.zstd_level},   {"dry_run", options.dry_run}};
}

// Lets methods that learn do so; what they learnt from, or "" where none learns.
std::string fit(Replay& replay, const CompressOptions& options) {
  if (!replay.needs_sample()) {
    if (!options.calibration.empty())
      throw InputError(fmt::format("--calibration: expected a recipe that learns (nuq, pq, budget), found {}",
                                   replay.recipe().text()));
    return "";
  }
  if (options.calibration.empty()) {
    replay.fit(replay.pages());
    return "the capture itself";
  }
  replay.fit(load_capture(options.calibration).pages);
  return options.calibration;
}

ordered_json report_json(const CompressFacts& facts, const ordered_json& capture_facts, const RunStamp& stamp,
                         int threads) {
  ordered_json report = report_frame("compression", stamp, threads, facts.options.seed,
                                     facts.replay.recipe().text(), options_json(facts.options));
  report["model"] = capture_facts.at("model");
  report["definitions"] = ordered_json::object();
  for (const Definition& definition : compression_definitions())
    report["definitions"][definition.term] = definition.text;
  report["compression"] = compression_json(facts);
  return report;
}

Capture load_checked(const std::string& folder, const std::string& source) {
  Capture capture = load_capture(folder);
  if (capture.pages.page_count() == 0)
    throw InputError(
        fmt::format("{}: expected at least one full page, found none; capture longer prompts", source));
  if (!capture.facts->contains("model")) throw InputError(fmt::format("{}: facts.model: missing", source));
  check_memory(capture.pages, source);
  return capture;
}

void measure_and_write(CompressFacts& facts, const ordered_json& capture_facts,
                       const ordered_json& provenance, CompressedWriter& writer, ThreadPool& pool,
                       Progress& progress) {
  progress.stage("errors", facts.replay.pages().layers, "layers");
  const auto measuring_start = Clock::now();
  facts.errors = replay_errors(facts.replay, pool, [&](int64_t layers) { progress.update(layers); });
  facts.errors_s = seconds_since(measuring_start);
  progress.stage("write", 0, "");
  const auto writing_start = Clock::now();
  facts.files = writer.write(facts.stored, facts.options.zstd_level, capture_facts, provenance);
  facts.write_s = seconds_since(writing_start);
}

}  // namespace

ordered_json run_compress(const CompressOptions& options, const RunStamp& stamp, ThreadPool& pool,
                          Progress& progress) {
  const Recipe recipe = Recipe::parse(options.recipe);
  std::optional<CompressedWriter> writer;
  if (!options.dry_run) writer.emplace(options.output_dir);
  progress.stage("load", 0, "");
  const std::string source = options.capture + "/manifest.json";
  const Capture capture = load_checked(options.capture, source);

  const auto compressing_start = Clock::now();
  Replay replay(recipe, capture.pages, pool, options.seed);
  const std::string learnt_from = fit(replay, options);
  progress.stage("compress", tokens_of(capture.pages), "tokens");
  replay.run([&](int64_t tokens) { progress.update(tokens); });
  const StoredPages stored(replay);
  CompressFacts facts{.options = options,
                      .replay = replay,
                      .stored = stored,
                      .learnt_from = learnt_from,
                      .compress_s = seconds_since(compressing_start)};
  if (writer)
    measure_and_write(facts, *capture.facts, provenance_json(stamp, pool.threads(), options.seed), *writer,
                      pool, progress);
  progress.finish();
  ordered_json report = report_json(facts, *capture.facts, stamp, pool.threads());
  check_report(ordered_json::parse(report.dump(-1, ' ', false, ordered_json::error_handler_t::replace)),
               source + ": facts as they go into the report");
  if (writer) {
    write_report(report, writer->path(), {.plots = false});
    throw_if_interrupted();
    writer->finish();
  }
  return report;
}

int64_t run_decompress(const std::string& compressed, const std::string& output_dir, const RunStamp& stamp,
                       ThreadPool& pool, Progress& progress) {
  CaptureWriter writer(output_dir);
  progress.stage("load", 0, "");
  const CompressedCapture stored = CompressedCapture::load(compressed);
  const PageSet& layout = stored.layout();
  KvCacheOptions options;
  options.layers = layout.layers;
  options.kv_heads = layout.kv_heads;
  options.head_dim = layout.head_dim;
  options.page_tokens = layout.page_tokens;
  options.key_basis = layout.key_basis;
  options.rope = layout.rope;
  const double bytes = 2.0 * static_cast<double>(layout.page_count()) *
                       static_cast<double>(layout.page_values()) * layout.layers *
                       static_cast<double>(dtype_bytes(layout.dtype));
  if (bytes > static_cast<double>(writer.free_bytes()))
    throw InputError(fmt::format("{}: the capture needs {:.0f} MiB of disk, {} MiB are free", output_dir,
                                 bytes / 0x1p20, writer.free_bytes() >> 20));
  writer.begin(options, layout.dtype);
  progress.stage("decompress", tokens_of(layout), "tokens");
  int64_t first = 0;
  const int64_t head_values = int64_t{layout.page_tokens} * layout.head_dim;
  for (const CapturedPrompt& prompt : layout.prompts) {
    std::vector<int64_t> starts;
    for (int64_t page = first; page < first + prompt.pages; ++page)
      starts.push_back(layout.pages[static_cast<std::size_t>(page)].start);
    writer.add_prompt(prompt, starts, [&](int layer, Side side, int64_t from, int64_t count, float* rows) {
      for (int64_t page = first + from; page < first + from + count; ++page)
        for (int head = 0; head < layout.kv_heads; ++head, rows += head_values)
          stored.read_page(page, layer, head, side, {rows, layout.page_tokens, layout.head_dim});
    });
    first += prompt.pages;
    progress.update(first * layout.page_tokens);
  }
  progress.finish();
  ordered_json facts = stored.facts();
  facts["recipe"] = stored.recipe();
  writer.finish(facts, provenance_json(stamp, pool.threads(), 0));
  return layout.page_count();
}

}  // namespace kva
