// The "ab" object of report.json (docs/formats.md).
#pragma once

#include <nlohmann/json_fwd.hpp>
#include <vector>

#include "reports/ab_run.h"
#include "reports/ab_statistics.h"
#include "reports/decode_timing.h"
#include "reports/evaluation.h"
#include "reports/passkey_run.h"

namespace kva {

// All that a row can be made of. Indices of rows: 0 is the baseline, candidate i is row i + 1.
struct AbFacts {
  const AbOptions& options;
  const Evaluation& evaluation;
  const AbStatistics& statistics;
  const std::vector<DecodeTiming>& timing;  // one a row, or none
  const PasskeyResult* passkey = nullptr;   // absent where it was not run
  int64_t token_values = 0;                 // K and V numbers of a token, all layers
  int64_t max_positions = 0;                // of the model
  std::string weights;                      // type of the matrices
};

// The members "protocol", "base", "blocks", "rows", "noise_floor", "differences", "equal_bytes",
// "against_bases" and "passkey".
nlohmann::ordered_json ab_json(const AbFacts& facts);

// Names of effects in rows.
inline constexpr const char* kNoEffect = "no effect";

}  // namespace kva
