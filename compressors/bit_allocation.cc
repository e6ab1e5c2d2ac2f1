#include "compressors/bit_allocation.h"

#include <algorithm>
#include <numeric>

#include "kernels/check.h"

namespace kva {
namespace {

double gain(const StorageChoice& from, const StorageChoice& to) {
  return (from.loss - to.loss) / static_cast<double>(to.bytes - from.bytes);
}

// Indices of the choices on the lower convex hull of loss over bytes: bytes rise, loss and gain a byte fall.
std::vector<std::size_t> hull(const std::vector<StorageChoice>& choices) {
  std::vector<std::size_t> order(choices.size());
  std::iota(order.begin(), order.end(), std::size_t{0});
  std::stable_sort(order.begin(), order.end(), [&](std::size_t a, std::size_t b) {
    return choices[a].bytes != choices[b].bytes ? choices[a].bytes < choices[b].bytes
                                                : choices[a].loss < choices[b].loss;
  });
  std::vector<std::size_t> kept;
  for (const std::size_t next : order) {
    const StorageChoice& to = choices[next];
    if (!kept.empty() && to.loss >= choices[kept.back()].loss) continue;
    if (!kept.empty() && to.bytes == choices[kept.back()].bytes) continue;
    while (kept.size() > 1 && gain(choices[kept[kept.size() - 2]], choices[kept.back()]) <=
                                  gain(choices[kept[kept.size() - 2]], to))
      kept.pop_back();
    kept.push_back(next);
  }
  return kept;
}

}  // namespace

std::optional<std::vector<std::size_t>> allocate_bytes(std::span<const std::vector<StorageChoice>> parts,
                                                       int64_t budget_bytes) {
  std::vector<std::vector<std::size_t>> ladders;
  std::vector<std::size_t> steps(parts.size(), 0);  // taken on each ladder
  std::vector<char> closed(parts.size(), 0);        // its next step is more than what is left
  int64_t left = budget_bytes;
  for (const auto& choices : parts) {
    KVA_CHECK(!choices.empty(), "a part can be stored somehow");
    ladders.push_back(hull(choices));
    left -= choices[ladders.back().front()].bytes;
  }
  if (left < 0) return std::nullopt;
  for (;;) {
    std::optional<std::size_t> best;
    double most = 0.0;
    for (std::size_t part = 0; part < parts.size(); ++part) {
      if (closed[part] || steps[part] + 1 == ladders[part].size()) continue;
      const StorageChoice& from = parts[part][ladders[part][steps[part]]];
      const StorageChoice& to = parts[part][ladders[part][steps[part] + 1]];
      if (to.bytes - from.bytes > left) {
        closed[part] = 1;
      } else if (const double of = gain(from, to); of > most) {
        most = of;
        best = part;
      }
    }
    if (!best) break;
    left -= parts[*best][ladders[*best][steps[*best] + 1]].bytes -
            parts[*best][ladders[*best][steps[*best]]].bytes;
    ++steps[*best];
  }
  std::vector<std::size_t> result;
  for (std::size_t part = 0; part < parts.size(); ++part) result.push_back(ladders[part][steps[part]]);
  return result;
}

}  // namespace kva
