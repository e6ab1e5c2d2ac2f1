// Which sequences begin with the same tokens, page by page: a prompt whose beginning is in the cache already
// need not compute it again. Pages are found by a hash chained over their tokens, as vLLM's prefix caching
// does (arXiv 2309.06180), and confirmed by the tokens themselves.
#pragma once

#include <cstdint>
#include <span>
#include <unordered_map>
#include <vector>

#include "runtime/kv/batch.h"

namespace kva {

class PrefixIndex {
 public:
  explicit PrefixIndex(int64_t page_tokens) : page_tokens_(page_tokens) {}

  // The sequence is in the cache with these tokens. Its full pages can be found until remove().
  void add(SequenceId sequence, std::span<const int32_t> tokens);
  void remove(SequenceId sequence);

  struct Match {
    SequenceId sequence = -1;
    int64_t tokens = 0;  // full pages' worth; 0: nothing found
  };
  // The longest run of full pages at the beginning of `tokens` that some sequence begins with too.
  Match find(std::span<const int32_t> tokens) const;

 private:
  // Calls body(page, hash of the tokens up to and with it) until it returns false.
  template <typename Body>
  void for_pages(std::span<const int32_t> tokens, const Body& body) const;

  int64_t page_tokens_;
  std::unordered_map<SequenceId, std::vector<int32_t>> tokens_;
  std::unordered_multimap<uint64_t, SequenceId> pages_;
};

}  // namespace kva
