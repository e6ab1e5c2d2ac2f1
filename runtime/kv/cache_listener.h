// Who wants to know what happens to a cache's sequences, in order to change its pages: the caller of
// Decoder::step() tells it, on its own thread.
#pragma once

#include "runtime/kv/batch.h"

namespace kva {

class CacheListener {
 public:
  virtual ~CacheListener() = default;

  virtual void after_step(const Batch& batch) = 0;
  // The sequence's prompt is in the cache as a whole.
  virtual void end_prompt(SequenceId sequence) = 0;
  virtual void after_fork(SequenceId sequence, SequenceId copy) = 0;
  virtual void before_free(SequenceId sequence) = 0;
};

}  // namespace kva
