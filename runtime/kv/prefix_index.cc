#include "runtime/kv/prefix_index.h"

#include <xxhash.h>

#include <algorithm>

#include "kernels/check.h"

namespace kva {

template <typename Body>
void PrefixIndex::for_pages(std::span<const int32_t> tokens, const Body& body) const {
  const auto size = static_cast<std::size_t>(page_tokens_);
  uint64_t hash = 0;
  for (std::size_t page = 0; (page + 1) * size <= tokens.size(); ++page) {
    hash = XXH3_64bits_withSeed(tokens.data() + page * size, size * sizeof(int32_t), hash);
    if (!body(static_cast<int64_t>(page), hash)) return;
  }
}

void PrefixIndex::add(SequenceId sequence, std::span<const int32_t> tokens) {
  KVA_CHECK(!tokens_.contains(sequence), "a sequence is added once");
  tokens_.emplace(sequence, std::vector<int32_t>(tokens.begin(), tokens.end()));
  for_pages(tokens, [&](int64_t, uint64_t hash) {
    pages_.emplace(hash, sequence);
    return true;
  });
}

void PrefixIndex::remove(SequenceId sequence) {
  const auto found = tokens_.find(sequence);
  if (found == tokens_.end()) return;
  for_pages(found->second, [&](int64_t, uint64_t hash) {
    const auto [first, last] = pages_.equal_range(hash);
    pages_.erase(std::find_if(first, last, [&](const auto& entry) { return entry.second == sequence; }));
    return true;
  });
  tokens_.erase(found);
}

PrefixIndex::Match PrefixIndex::find(std::span<const int32_t> tokens) const {
  Match best;
  for_pages(tokens, [&](int64_t page, uint64_t hash) {
    const auto count = static_cast<std::size_t>((page + 1) * page_tokens_);
    SequenceId holder = -1;
    const auto [first, last] = pages_.equal_range(hash);
    for (auto entry = first; entry != last; ++entry) {
      const std::vector<int32_t>& held = tokens_.at(entry->second);
      const bool same =
          std::equal(tokens.begin(), tokens.begin() + static_cast<std::ptrdiff_t>(count), held.begin());
      if (same && (holder < 0 || entry->second < holder)) holder = entry->second;
    }
    if (holder >= 0) best = {holder, static_cast<int64_t>(count)};
    return holder >= 0;
  });
  return best;
}

}  // namespace kva
