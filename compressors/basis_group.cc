#include "compressors/basis_group.h"

#include <fmt/format.h>

#include <algorithm>
#include <cmath>

#include "runtime/error.h"

namespace kva {
namespace {

void check_finite(const std::vector<float>& rows, int64_t width, const Cell& cell, int64_t start) {
  const auto found =
      std::find_if_not(rows.begin(), rows.end(), [](float value) { return std::isfinite(value); });
  if (found == rows.end()) return;
  throw InputError(fmt::format("{} of the page at position {}: token {}: expected finite numbers, found {}",
                               cell_name(cell), start, (found - rows.begin()) / width, *found));
}

}  // namespace

std::vector<BasisGroup> basis_groups(std::span<const Cell> cells, int layers, int64_t head_dim) {
  std::vector<BasisGroup> groups;
  for (const Side side : {Side::kKey, Side::kValue}) {
    const std::size_t first_of_side = groups.size();
    for (std::size_t i = 0; i < cells.size(); ++i) {
      if (cells[i].side != side) continue;
      const bool joins = layers > 1 && groups.size() > first_of_side &&
                         cells[i].layer - groups.back().cells.front().layer < layers &&
                         cells[i].layer - groups.back().cells.back().layer <= 1;
      if (!joins) groups.emplace_back();
      groups.back().cells.push_back(cells[i]);
      groups.back().among.push_back(i);
      groups.back().width += head_dim;
    }
  }
  return groups;
}

std::vector<PageAddress> group_page(const KvCache& cache, SequenceId sequence, const BasisGroup& group,
                                    int64_t page) {
  std::vector<PageAddress> at;
  std::vector<PageFacts> facts;
  for (const Cell& cell : group.cells) {
    at.push_back({sequence, cell.layer, cell.kv_head,
                  page_in_table(cache, sequence, cell.layer, cell.kv_head, page), cell.side});
    if (at.back().page >= 0 && at.back().page < cache.pages(sequence, cell.layer, cell.kv_head))
      facts.push_back(cache.page(at.back()));
  }
  const bool equal =
      facts.size() == group.cells.size() && std::all_of(facts.begin(), facts.end(), [&](const PageFacts& of) {
        return of.tokens == facts.front().tokens && !of.open;
      });
  if (!equal) at.clear();
  return at;
}

std::vector<float> read_group(const KvCache& cache, SequenceId sequence, const BasisGroup& group,
                              int64_t first, int64_t pages) {
  const int64_t dim = cache.options().head_dim;
  std::vector<float> joined, rows;
  for (int64_t page = first; page < first + pages; ++page) {
    const std::vector<PageAddress> at = group_page(cache, sequence, group, page);
    if (at.empty()) continue;
    const PageFacts facts = cache.page(at.front());
    const int64_t tokens = facts.tokens;
    const std::size_t before = joined.size();
    joined.resize(before + static_cast<std::size_t>(tokens * group.width));
    rows.resize(static_cast<std::size_t>(tokens * dim));
    for (std::size_t i = 0; i < group.cells.size(); ++i) {
      cache.read_page(sequence, at[i].layer, at[i].kv_head, at[i].page, at[i].side,
                      MatView<float>(rows.data(), tokens, dim));
      check_finite(rows, dim, group.cells[i], cache.page(at[i]).start);
      for (int64_t t = 0; t < tokens; ++t)
        std::copy_n(
            rows.data() + t * dim, dim,
            joined.data() + static_cast<int64_t>(before) + t * group.width + static_cast<int64_t>(i) * dim);
    }
  }
  return joined;
}

std::vector<float> joined_rows(const Draft& draft, const BasisGroup& group) {
  const int64_t tokens = draft.streams[group.among.front()].tokens;
  std::vector<float> joined(static_cast<std::size_t>(tokens * group.width));
  int64_t column = 0;
  for (const std::size_t index : group.among) {
    const DraftStream& stream = draft.streams[index];
    if (stream.tokens != tokens) return {};
    for (int64_t t = 0; t < tokens; ++t)
      std::copy_n(stream.rows.data() + t * stream.width, stream.width,
                  joined.data() + t * group.width + column);
    column += stream.width;
  }
  return joined;
}

void BasisHistory::renew(Basis basis, int64_t first_page, int64_t fit_end) {
  versions_.push_back({first_page, fit_end, basis});
  current_ = std::move(basis);
}

BasisHistory BasisHistory::before(int64_t pages) const {
  BasisHistory copy;
  for (const Version& version : versions_)
    if (version.first_page < pages) copy.versions_.push_back(version);
  if (!copy.versions_.empty()) copy.current_ = copy.versions_.back().basis.lock();
  return copy;
}

}  // namespace kva
