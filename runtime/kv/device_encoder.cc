#include "runtime/kv/device_encoder.h"

#include <algorithm>
#include <optional>

#include "kernels/check.h"

namespace kva {
namespace {

constexpr std::string_view kPurpose = "encoding workspace";
constexpr int64_t kMostScratch = int64_t{16} << 20;
constexpr std::size_t kNoRows = SIZE_MAX;

// Of a side that tokens can join: rows as they came.
std::optional<SideFormat> dense_format(const PageStore& store, SideId id) {
  if (!store.codec(id).appendable()) return std::nullopt;
  const auto format = store.codec(id).device_format(std::max<int64_t>(store.tokens(id), 1), store.width(id));
  return format && !is_packed(format->kind) ? format : std::nullopt;
}

}  // namespace

DeviceEncoder::DeviceEncoder(PageStore& store, Backend& backend)
    : store_(store),
      backend_(backend),
      rows_(backend, kPurpose),
      sides_(backend, kPurpose),
      scratch_(backend, kPurpose),
      refused_(backend, kPurpose) {}

bool DeviceEncoder::codes(const SideCodec& codec, std::span<const SideTokens> sources,
                          const PageStore& store) {
  if (sources.empty()) return false;
  const SideCodec& open = store.codec(sources[0].side);
  if (!codec.device_codes() && &codec != &open) return false;
  return std::all_of(sources.begin(), sources.end(), [&](const SideTokens& of) {
    return &store.codec(of.side) == &open && store.base(of.side) == kNoSide && dense_format(store, of.side);
  });
}

DeviceEncoder::Group& DeviceEncoder::group_of(const NewSide& side) {
  PackJob job;
  job.format = side.codec->device_format(side.tokens, side.width).value();
  job.source_kind = dense_format(store_, side.sources[0].side).value().kind;
  job.tokens = static_cast<int32_t>(side.tokens);
  for (Group& group : groups_)
    if (group.job.format == job.format && group.job.source_kind == job.source_kind &&
        group.job.tokens == job.tokens)
      return group;
  return groups_.emplace_back(Group{job, {}, {}});
}

void DeviceEncoder::add(const NewSide& side, SideId id) {
  Group& group = group_of(side);
  const int64_t row_bytes = side.width * side_bits(group.job.source_kind) / 8;
  const auto address = [&](const SideTokens& of, int32_t token) {
    return store_.data(of.side).payload + (of.first + token) * row_bytes;
  };
  PackSide packed{.payload = store_.writable_payload(id)};
  std::size_t first_row = kNoRows;
  if (side.sources.size() == 1) {
    packed.source = address(side.sources[0], 0);
  } else {
    first_row = row_addresses_.size();
    for (const SideTokens& of : side.sources)
      for (int32_t t = 0; t < of.count; ++t) row_addresses_.push_back(address(of, t));
    KVA_CHECK(std::ssize(row_addresses_) - static_cast<int64_t>(first_row) == side.tokens,
              "as many tokens as the side has");
  }
  group.sides.push_back(packed);
  group.first_row.push_back(first_row);
}

void DeviceEncoder::launch(const Group& group, int64_t first_side) {
  const int64_t scratch_bytes = pack_scratch(group.job.format).bytes;
  const auto count = std::ssize(group.sides);
  const int64_t at_once =
      scratch_bytes == 0 ? count : std::clamp<int64_t>(kMostScratch / scratch_bytes, 1, count);
  scratch_.reserve(at_once * scratch_bytes);
  PackJob job = group.job;
  job.scratch = scratch_.data();
  job.refused = refused_.data();
  for (int64_t at = 0; at < count; at += at_once) {
    job.sides = sides_.data() + first_side + at;
    job.count = static_cast<int32_t>(std::min(at_once, count - at));
    backend_.device()->pack(job);
  }
}

bool DeviceEncoder::code(const Plan& plan, std::span<const SideId> sides) {
  groups_.clear();
  row_addresses_.clear();
  for (std::size_t i = 0; i < plan.sides.size(); ++i)
    if (!plan.sides[i].sources.empty()) add(plan.sides[i], sides[i]);
  if (!row_addresses_.empty()) rows_.upload(row_addresses_);
  std::vector<PackSide> all;
  for (Group& group : groups_)
    for (std::size_t i = 0; i < group.sides.size(); ++i) {
      if (group.first_row[i] != kNoRows) group.sides[i].rows = rows_.data() + group.first_row[i];
      all.push_back(group.sides[i]);
    }
  sides_.upload(all);
  int32_t refused = 0;
  refused_.upload({&refused, 1});
  int64_t first = 0;
  for (const Group& group : groups_) {
    launch(group, first);
    first += std::ssize(group.sides);
  }
  backend_.download(&refused, refused_.data(), sizeof(refused));
  return refused != 0;
}

void DeviceEncoder::add_to(ByteLedger& ledger) const {
  for (const int64_t bytes :
       {rows_.held_bytes(), sides_.held_bytes(), scratch_.held_bytes(), refused_.held_bytes()})
    ledger.workspace += bytes;
}

}  // namespace kva
