// The "compression" object of report.json (docs/formats.md).
#pragma once

#include <nlohmann/json_fwd.hpp>
#include <string>
#include <vector>

#include "compressors/compressed_capture.h"
#include "compressors/replay.h"
#include "reports/compress_run.h"
#include "reports/redundancy_definitions.h"
#include "reports/replay_errors.h"

namespace kva {

// All that it is made of.
struct CompressFacts {
  const CompressOptions& options;
  const Replay& replay;
  const StoredPages& stored;
  std::vector<LayerErrors> errors = {};  // one a layer; none in a dry run
  std::vector<StoredFile> files = {};    // none in a dry run
  std::string learnt_from = {};          // empty: nothing was learnt
  double compress_s = 0, errors_s = 0, write_s = 0;
};

nlohmann::ordered_json compression_json(const CompressFacts& facts);

// One sentence for each term.
std::vector<Definition> compression_definitions();

}  // namespace kva
