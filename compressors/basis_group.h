// Cells whose rows, joined, are spanned by one basis of a sequence: one cell, or a side of neighbouring
// layers.
#pragma once

#include <cstdint>
#include <memory>
#include <span>
#include <vector>

#include "compressors/codecs/lowrank_codec.h"
#include "compressors/draft.h"
#include "runtime/kv/kv_cache.h"

namespace kva {

struct BasisGroup {
  std::vector<Cell> cells;         // in the order in which their rows are joined
  std::vector<std::size_t> among;  // where each stands among the cells that the groups were made of
  int64_t width = 0;               // of a joined row
};

// layers = 1: a group for each cell. More: a group for each side of so many neighbouring layers, counted from
// the first; where layers are missing among the cells, the next group begins.
std::vector<BasisGroup> basis_groups(std::span<const Cell> cells, int layers, int64_t head_dim);

// Where the group's cells have the sequence's page; empty where it is gone or open in some table, or not of
// equally many tokens in all of them.
std::vector<PageAddress> group_page(const KvCache& cache, SequenceId sequence, const BasisGroup& group,
                                    int64_t page);

// Joined rows [tokens, group.width] of pages [first, first + pages) as the cache holds them, of those pages
// whose cells have equally many tokens. Throws InputError, naming cell and position, for numbers that are not
// finite.
std::vector<float> read_group(const KvCache& cache, SequenceId sequence, const BasisGroup& group,
                              int64_t first, int64_t pages);

// The same of a draft's page; empty where the cells differ in tokens.
std::vector<float> joined_rows(const Draft& draft, const BasisGroup& group);

using Basis = std::shared_ptr<const LowRankBasis>;

// A group's bases in one sequence.
class BasisHistory {
 public:
  const Basis& current() const { return current_; }
  // Whether the page is one that the current basis was fitted on.
  bool fitted_on(int64_t page) const { return !versions_.empty() && page < versions_.back().fit_end; }

  // `basis`, fitted on pages before `fit_end`, is for pages from `first_page` on.
  void renew(Basis basis, int64_t first_page, int64_t fit_end);

  // As it was when the page before `pages` was written.
  BasisHistory before(int64_t pages) const;

 private:
  struct Version {
    int64_t first_page;
    int64_t fit_end;
    std::weak_ptr<const LowRankBasis> basis;  // it lives as long as its pages
  };
  std::vector<Version> versions_;
  Basis current_;
};

}  // namespace kva
