// What the benchmark measures, a file a job. Each prints its rows; copy: GB/s of a copy (measuring.h).
#pragma once

namespace kva {

// A token of several sequences against a long context.
void decode_cases(double copy);
// A chunk of tokens at its end.
void prefill_cases();
void packing_cases(double copy);
void pair_cases();

}  // namespace kva
