// Short checks that this machine computes what it should, for `kvanalyze doctor`.
#pragma once

#include <string>
#include <vector>

#include "reports/capture_run.h"

namespace kva {

struct SelfCheck {
  std::string subject;
  std::string finding;
  bool passed = false;
};

// Products of every weight type and attention over pages against f64, the ledger against the allocator.
std::vector<SelfCheck> run_self_checks(int threads);

// Loads the model, decodes a few tokens and looks at the logits. Throws InputError where it cannot be loaded.
SelfCheck check_model_decodes(const CaptureOptions& options, int threads);

}  // namespace kva
