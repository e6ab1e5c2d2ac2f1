// From model and prompts to pages: loads the model, decodes every prompt through a paged KV cache and hands
// the full pages to a sink (memory or a capture folder).
#pragma once

#include <cstdint>
#include <nlohmann/json_fwd.hpp>
#include <string>

#include "kernels/dtype.h"
#include "kernels/parallel.h"
#include "reports/model_run.h"
#include "reports/progress.h"
#include "reports/prompts.h"
#include "runtime/kv/capture.h"

namespace kva {

// Everything that decides what is in the cache; printed into the report as it is.
struct CaptureOptions : ModelOptions {
  PromptSource prompts;
  bool chat = false;        // wrap each prompt in the model's chat template
  int64_t max_tokens = 16;  // generated after each prompt, greedily
  int64_t max_context = 0;  // tokens of each prompt, 0 for all that the model takes
  int batch_size = 8;       // sequences decoded together
  int page_tokens = 16;
  DType kv_dtype = DType::kF16;
  KeyBasis key_basis = KeyBasis::kRotated;
};

// Returns the facts of the run, the members "model", "sets", "prompts", "cache", "timing" and "recipe" of
// report.json, and "device", for RunStamp::device. Throws InputError; nothing is left in the sink's folder
// then.
nlohmann::ordered_json run_capture(const CaptureOptions& options, PageSink& sink, ThreadPool& pool,
                                   Progress& progress);

// The ledger as an object, with "held".
nlohmann::ordered_json ledger_json(const ByteLedger& ledger);

// The "options" object of the provenance.
nlohmann::ordered_json options_json(const CaptureOptions& options);

}  // namespace kva
