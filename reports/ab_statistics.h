// What an evaluation says: the quality of each row, differences of rows, and rows beside other methods'
// curves at equal bytes. All intervals come from one bootstrap, so that everything is paired.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "analyzer/quality/bootstrap.h"
#include "analyzer/quality/equal_bytes.h"
#include "analyzer/quality/quality.h"
#include "reports/evaluation.h"
#include "runtime/kv/byte_ledger.h"

namespace kva {

// Bytes at the last scored token: means over the windows that were run to their end, all of one length.
struct RowBytes {
  int64_t tokens = 0;          // seen
  ByteLedger ledger;           // parts are rounded means, so that they add up to held(); peak is the largest
  std::vector<double> layers;  // payload and scales
  int64_t windows = 0;
};
RowBytes row_bytes(const Candidate& candidate);

// Rows a and b (indices; 0 is the baseline) on the same tokens, a minus b.
struct RowDifference {
  std::size_t a = 0;
  std::size_t b = 0;
  QualityDifference quality;
};

// A row less the curve of another family's rows (recipe_family.h) at the row's bytes. The curve goes through
// the rows that no other of the family beats in bytes and mean KL.
struct EqualBytesRow {
  std::size_t row = 0;
  std::string curve;   // the family
  int64_t points = 0;  // of the curve
  Estimate kl_mean;
  Estimate log_perplexity_ratio;
};

struct AbStatistics {
  BootstrapOptions bootstrap;
  std::vector<QualitySummary> rows;                // the baseline, then the candidates
  std::vector<RowBytes> bytes;                     // likewise
  std::vector<std::vector<QualitySummary>> turns;  // [rows][turns]; no turns where there is but one
  QualitySummary rechunked;
  std::vector<RowDifference> differences;  // every pair a > b
  std::vector<EqualBytesRow> equal_bytes;
  std::vector<RowDifference> against_bases;  // a merges, b is its eviction_base()
  std::vector<std::size_t> front;  // rows that no other beats in bytes and mean KL, by ascending bytes
};

// Throws Interrupted.
AbStatistics ab_statistics(const Evaluation& evaluation, const WindowOptions& windows,
                           const BootstrapOptions& bootstrap);

}  // namespace kva
