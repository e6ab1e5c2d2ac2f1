// What a method does to each page that a recipe hands it. A step belongs to one compressor, and so to one
// cache; what it remembers of sequences is its own.
#pragma once

#include <cstdint>
#include <memory>
#include <span>
#include <string>
#include <utility>
#include <vector>

#include "compressors/draft.h"
#include "compressors/token_policy.h"
#include "kernels/parallel.h"
#include "runtime/kv/kv_cache.h"
#include "runtime/kv/page_set.h"

namespace kva {

// Where a step works; good as long as the compressor.
struct StepContext {
  KvCache& cache;
  ThreadPool& pool;
  std::span<const Cell> cells;  // of the step's statement
  uint64_t seed = 0;
  const TokenClasses* classes = nullptr;  // of the model's tokenizer, where the caller gave one

  int layers() const { return cache.options().layers; }
};

// When and how far a step that works on tables may change a sequence.
struct Revision {
  SequenceId sequence = 0;
  int64_t settled = 0;                // tokens on pages that no other step of the pipeline waits for
  bool prompt_ended = false;          // just now
  std::span<const int32_t> ids = {};  // of the sequence's tokens
};

class Step {
 public:
  virtual ~Step() = default;

  // Called once, before any draft. Throws InputError for parameters that do not fit the cache.
  virtual void begin(const StepContext&) {}

  // Makes of a page of zeros in no table what run() would store it as: codecs and what builds on what, those
  // that it learns or fits with numbers of its own choice. Called after begin(), of steps that are no
  // MethodKind::kStructure, in place of all else, to know beforehand whether a device reads it.
  virtual void outline(const StepContext& context, Draft& draft) { run(context, draft); }

  // Whether the step learns from pages of a calibration text before it begins; then fit() comes first. The
  // sample has the shape and key basis of the cache; it holds full pages only.
  virtual bool needs_sample() const { return false; }
  virtual void fit(const StepContext&, const PageSet&) {}
  // Whether it makes use of PageSet::part_losses, which take long to measure; it goes without where they are
  // missing.
  virtual bool wants_part_losses() const { return false; }

  // Pages wait until this many tokens follow them, and until the sequence has so many.
  virtual int64_t window_tokens() const { return 0; }
  virtual int64_t tokens_to_begin() const { return 0; }

  // Whether the sequence's next page can be taken now. Where not, it waits with all behind it, and is asked
  // for again after the sequence's next step.
  virtual bool ready(const StepContext&, SequenceId /*sequence*/, int64_t /*page*/) { return true; }

  // What it wants to know of the tables that its cells are of; collected from the first token on.
  virtual Observations observes() const { return {}; }

  // Whether run() or applied() looks at the numbers of pages. Where no step of a stage does, they may never
  // leave the memory of the device that has them.
  virtual bool reads_numbers() const { return true; }

  // Takes the next page of its sequence; the pages of a sequence come in order, each once.
  virtual void run(const StepContext&, Draft&) {}

  // Whether it works on a sequence's tables as a whole instead of page by page: then revise() is called in
  // place of run(), after the pages of the pipeline have been through its other steps.
  virtual bool works_on_tables() const { return false; }
  // A prompt of so many tokens begins at position `start`.
  virtual void begin_prompt(const StepContext&, SequenceId, int64_t /*start*/, int64_t /*tokens*/) {}
  // Plans that are applied one after the other: what one frees the next can take.
  virtual std::vector<Plan> revise(const StepContext&, const Revision&) { return {}; }
  // Some step has revised the sequence's tables: pages are not where they were.
  virtual void moved(const StepContext&, SequenceId) {}

  // The draft's plan was applied: refs are where the step asked for them.
  virtual void applied(const StepContext&, const Draft&) {}

  // `copy` shares the first `pages` pages of `sequence`, as far as steps have taken them.
  virtual void forked(const StepContext&, SequenceId /*sequence*/, SequenceId /*copy*/, int64_t /*pages*/) {}

  // The sequence is about to be freed.
  virtual void forget(const StepContext&, SequenceId) {}

  // What it has counted so far, by "method.name" with the unit in it where there is one; steps of one method
  // add up.
  virtual std::vector<std::pair<std::string, double>> counters() const { return {}; }

  // What the user should know of the step on this cache.
  virtual std::vector<std::string> remarks() const { return {}; }

  // What it told each head to do, where heads differ.
  virtual std::vector<HeadDecision> decisions() const { return {}; }
};

}  // namespace kva
