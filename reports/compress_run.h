// Compressing a capture offline, and back: `kvanalyze compress` and `decompress`.
#pragma once

#include <nlohmann/json_fwd.hpp>
#include <string>

#include "kernels/parallel.h"
#include "reports/progress.h"
#include "reports/provenance.h"

namespace kva {

// Everything that decides a result; printed into the report as it is.
struct CompressOptions {
  std::string capture;  // folder
  std::string recipe;
  std::string calibration;  // a capture for methods that learn; empty: the capture itself
  std::string output_dir;
  int zstd_level = 3;    // of the files, not of what memory holds; 0: as they are
  bool dry_run = false;  // bytes only: nothing is written, no error measured
  uint64_t seed = 0;
};

// Puts the capture through the recipe, measures, and writes the compressed capture with the report beside it.
// Returns report.json, of kind "compression" (docs/formats.md). Throws InputError, Interrupted; the folder
// then holds what it held before.
nlohmann::ordered_json run_compress(const CompressOptions& options, const RunStamp& stamp, ThreadPool& pool,
                                    Progress& progress);

// Writes a compressed capture as an ordinary one, whose values are those that a decoder would read from the
// pages. Returns its number of pages. Throws InputError, Interrupted; the folder then holds what it held
// before.
int64_t run_decompress(const std::string& compressed, const std::string& output_dir, const RunStamp& stamp,
                       ThreadPool& pool, Progress& progress);

}  // namespace kva
