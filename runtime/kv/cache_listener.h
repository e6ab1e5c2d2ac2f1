// Who wants to know what happens to a cache's sequences, in order to change its pages: the caller of
// Decoder::step() tells it, on its own thread.
#pragma once

#include <cstdint>
#include <span>

#include "runtime/kv/batch.h"

namespace kva {

class CacheListener {
 public:
  virtual ~CacheListener() = default;

  // Before the first step of a prompt, or of a later turn of the sequence: the ids that will come up to
  // end_prompt(). A prompt that shares a prefix is announced whole, after after_fork().
  virtual void begin_prompt(SequenceId sequence, std::span<const int32_t> prompt) = 0;
  // tokens: the ids of the batch's rows; none where they are not known, as of a capture's pages.
  virtual void after_step(const Batch& batch, std::span<const int32_t> tokens) = 0;
  // The sequence's prompt is in the cache as a whole.
  virtual void end_prompt(SequenceId sequence) = 0;
  virtual void after_fork(SequenceId sequence, SequenceId copy) = 0;
  virtual void before_free(SequenceId sequence) = 0;
};

}  // namespace kva
