// Dividing bytes among parts that can each be stored in several ways, so that the sum of their losses is as
// small as a greedy walk down their convex hulls makes it (Shoham and Gersho 1988, "Efficient bit allocation
// for an arbitrary set of quantizers").
#pragma once

#include <cstddef>
#include <cstdint>
#include <optional>
#include <span>
#include <vector>

namespace kva {

// One way to store a part.
struct StorageChoice {
  int64_t bytes = 0;
  double loss = 0.0;  // finite
};

// For each part the index of its choice, such that their bytes are at most `budget_bytes` in sum; nullopt
// where even the cheapest ones are more. Each part has at least one choice. Deterministic; where steps gain
// equally much for a byte, the earlier part's comes first.
std::optional<std::vector<std::size_t>> allocate_bytes(std::span<const std::vector<StorageChoice>> parts,
                                                       int64_t budget_bytes);

}  // namespace kva
