// A ragged batch: what one decoder step adds to each of several sequences. One sequence is a case of it.
#pragma once

#include <cstdint>
#include <vector>

namespace kva {

using SequenceId = int32_t;

// `tokens` new tokens of one sequence, in rows [first_row, first_row + tokens) of the step's matrices,
// standing at positions [start, start + tokens). `start` equals the number of tokens the sequence had before
// the step.
struct BatchSpan {
  SequenceId sequence = 0;
  int64_t first_row = 0;
  int64_t tokens = 0;
  int64_t start = 0;

  friend bool operator==(const BatchSpan&, const BatchSpan&) = default;
};

// Spans cover the rows in order, without gaps; a sequence appears at most once.
struct Batch {
  std::vector<BatchSpan> spans;

  int64_t rows() const { return spans.empty() ? 0 : spans.back().first_row + spans.back().tokens; }
};

}  // namespace kva
