// A capture's pages put through a recipe with the decoder's own machinery, without the model: each prompt is
// a sequence of one cache, its pages are appended one by one, and the recipe acts after each as it does after
// a step of decoding.
#pragma once

#include <cstdint>
#include <functional>
#include <memory>
#include <vector>

#include "compressors/compressor.h"
#include "compressors/draft.h"
#include "compressors/recipe.h"
#include "kernels/parallel.h"
#include "runtime/kv/kv_cache.h"
#include "runtime/kv/page_set.h"

namespace kva {

// rows [page_tokens, head_dim] of a captured page in a key basis.
void read_captured(const PageSet& pages, int64_t page, const Cell& cell, KeyBasis basis, MatView<float> rows);

// Used by one thread at a time; pages, recipe and pool outlive it.
class Replay {
 public:
  // Keys are stored in the recipe's key basis. Where that is the capture's, they are taken as they are, and
  // no bit changes before a method acts; else they are turned first. Throws InputError where the recipe does
  // not fit the pages, or has methods that a capture cannot feed: those that rank tokens by attention (it has
  // no queries) and dedup(prefix) (it has no token ids).
  Replay(const Recipe& recipe, const PageSet& pages, ThreadPool& pool, uint64_t seed);
  ~Replay();
  Replay(const Replay&) = delete;
  Replay& operator=(const Replay&) = delete;

  // Whether methods learn (nuq, pq): then fit() comes before run(). They see the first 4,096 tokens of
  // `sample`, which may be the pages themselves. Throws InputError where it is of another shape.
  bool needs_sample() const;
  void fit(const PageSet& sample);

  // Calls on_tokens with the number of tokens done so far. Throws InputError, Interrupted.
  void run(const std::function<void(int64_t tokens)>& on_tokens);

  const PageSet& pages() const { return pages_; }
  const Recipe& recipe() const { return recipe_; }
  const KvCache& cache() const { return *cache_; }
  CompressorStats stats() const { return compressor_->stats(); }
  // Bytes of payload before any method acted: pages as they fill.
  int64_t appended_bytes() const { return appended_bytes_; }

  // Of the keys in the cache: the recipe's, but the capture's for models with learned positions.
  KeyBasis stored_basis() const { return pages_.rope ? cache_->options().key_basis : pages_.key_basis; }

  // Where the capture's page is; in run()'s cache every page is full.
  PageAddress address(int64_t page, const Cell& cell) const;
  // rows [page_tokens, head_dim] as the cache has them, in a key basis. Thread-safe after run().
  void read_page(int64_t page, const Cell& cell, KeyBasis basis, MatView<float> rows) const;

 private:
  void append_page(SequenceId sequence, int64_t page);

  const Recipe& recipe_;
  const PageSet& pages_;
  ThreadPool& pool_;
  std::unique_ptr<KvCache> cache_;
  std::unique_ptr<Compressor> compressor_;
  std::vector<SequenceId> sequences_;  // by prompt
  std::vector<int64_t> first_pages_;   // by prompt
  int64_t appended_bytes_ = 0;
};

}  // namespace kva
