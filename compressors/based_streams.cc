#include "compressors/based_streams.h"

#include <algorithm>
#include <memory>
#include <utility>

namespace kva {
namespace {

// Whether the stream is still to be stored, and as it was read.
bool takes_basis(const DraftStream& stream) {
  return stream.unformatted() && stream.wraps.empty() && !stream.dropped() && !stream.shared;
}

void build_on_shared(Draft& draft, const BasisGroup& group, const Basis& basis) {
  DraftStream shared;
  shared.tokens = draft.streams[group.among.front()].tokens;
  shared.width = basis->rank();
  shared.origin = group.cells.front();
  shared.shared = true;
  if (draft.streams[group.among.front()].unread) {
    shared.unread = true;
    shared.joined = group.cells;
    shared.projection = basis;
  }
  for (std::size_t i = 0; i < group.cells.size(); ++i) {
    DraftStream& stream = draft.streams[group.among[i]];
    if (!takes_basis(stream)) continue;
    stream.codec = basis->part_codec(static_cast<int64_t>(i));
    stream.base = static_cast<int>(draft.streams.size());
  }
  draft.streams.push_back(std::move(shared));
}

}  // namespace

bool takes_basis(const Draft& draft, const BasisGroup& group) {
  const auto& among = group.among;
  return std::any_of(among.begin(), among.end(),
                     [&](std::size_t i) { return takes_basis(draft.streams[i]); }) &&
         std::all_of(group.cells.begin(), group.cells.end(),
                     [&](const Cell& cell) { return draft.same_places(cell, group.cells.front()); });
}

void put_on_basis(Draft& draft, const BasisGroup& group, const Basis& basis) {
  if (group.cells.size() > 1) return build_on_shared(draft, group, basis);
  draft.streams[group.among.front()].wraps.push_back(
      [basis](std::shared_ptr<const SideCodec> inner) { return basis->codec(std::move(inner)); });
}

}  // namespace kva
