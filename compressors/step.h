// What a method does to each page that a recipe hands it. A step belongs to one compressor, and so to one
// cache; what it remembers of sequences is its own.
#pragma once

#include <cstdint>
#include <memory>
#include <span>

#include "compressors/draft.h"
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

  int layers() const { return cache.options().layers; }
};

class Step {
 public:
  virtual ~Step() = default;

  // Called once, before any draft. Throws InputError for parameters that do not fit the cache.
  virtual void begin(const StepContext&) {}

  // Whether the step learns from pages of a calibration text before it begins; then fit() comes first. The
  // sample has the shape and key basis of the cache; it holds full pages only.
  virtual bool needs_sample() const { return false; }
  virtual void fit(const StepContext&, const PageSet&) {}

  // Pages wait until this many tokens follow them, and until the sequence has so many.
  virtual int64_t window_tokens() const { return 0; }
  virtual int64_t tokens_to_begin() const { return 0; }

  // Takes the next page of its sequence; the pages of a sequence come in order, each once.
  virtual void run(const StepContext& context, Draft& draft) = 0;

  // The draft's plan was applied: refs are where the step asked for them.
  virtual void applied(const StepContext&, const Draft&) {}

  // `copy` shares the first `pages` pages of `sequence`, as far as steps have taken them.
  virtual void forked(const StepContext&, SequenceId /*sequence*/, SequenceId /*copy*/, int64_t /*pages*/) {}

  // The sequence is about to be freed.
  virtual void forget(const StepContext&, SequenceId) {}
};

}  // namespace kva
