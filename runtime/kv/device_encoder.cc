#include "runtime/kv/device_encoder.h"

#include <algorithm>
#include <optional>

#include "kernels/check.h"
#include "kernels/unpack_lanes.h"
#include "runtime/kv/device_tables.h"
#include "runtime/kv/side_memory.h"

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

// Whether one launch can do both.
bool alike(const PackJob& a, const PackJob& b) {
  return a.format == b.format && a.front == b.front && a.source_kind == b.source_kind &&
         a.tokens == b.tokens && a.blends == b.blends && a.share == b.share && a.basis == b.basis &&
         a.base == b.base;
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

PackJob DeviceEncoder::job_of(const Plan& plan, const NewSide& side) const {
  PackJob job;
  if (side.base < 0) {
    job.format = readable_format(*side.codec, side.tokens, side.width).value();
  } else {
    const NewSide& base = plan.sides[static_cast<std::size_t>(side.base)];
    job.base = readable_format(*base.codec, base.tokens, base.width).value();
    KVA_CHECK(unpacks(job.base), "a base whose numbers the device can read");
    job.format = side.codec->device_format_on(job.base, side.tokens, side.width).value();
  }
  job.split_front();
  if (job.format.on_basis) {
    const DeviceBasis basis = side.codec->device_basis();
    job.basis = basis.array->on_device() + basis.offset;
  }
  job.source_kind = dense_format(store_, side.sources[0].side).value().kind;
  job.tokens = static_cast<int32_t>(side.tokens);
  job.blends = !side.others.empty();
  job.share = side.share;
  return job;
}

DeviceEncoder::Group& DeviceEncoder::group_of(const PackJob& job) {
  for (Group& group : groups_)
    if (alike(group.job, job)) return group;
  return groups_.emplace_back(Group{job, {}, {}, {}});
}

std::size_t DeviceEncoder::place_rows(std::span<const SideTokens> tokens, int64_t row_bytes,
                                      const std::byte*& first) {
  const auto address = [&](const SideTokens& of, int32_t token) {
    return store_.data(of.side).payload + (of.first + token) * row_bytes;
  };
  if (tokens.size() <= 1) {
    if (!tokens.empty()) first = address(tokens[0], 0);
    return kNoRows;
  }
  const std::size_t place = row_addresses_.size();
  for (const SideTokens& of : tokens)
    for (int32_t t = 0; t < of.count; ++t) row_addresses_.push_back(address(of, t));
  return place;
}

void DeviceEncoder::add(const Plan& plan, const NewSide& side, std::span<const SideId> ids) {
  for (const auto& tokens : {side.sources, side.others}) {
    int64_t count = 0;
    for (const SideTokens& of : tokens) count += of.count;
    KVA_CHECK(count == side.tokens || tokens.empty(), "as many tokens as the side has");
  }
  Group& group = group_of(job_of(plan, side));
  const int64_t row_bytes = side.width * side_bits(group.job.source_kind) / 8;
  PackSide packed{.payload =
                      store_.uncoded_payload(ids[static_cast<std::size_t>(&side - plan.sides.data())])};
  if (side.base >= 0) packed.base = store_.data(ids[static_cast<std::size_t>(side.base)]).payload;
  group.first_row.push_back(place_rows(side.sources, row_bytes, packed.source));
  group.first_other.push_back(place_rows(side.others, row_bytes, packed.other_source));
  group.sides.push_back(packed);
}

void DeviceEncoder::launch(const Group& group, int64_t first_side) {
  const int64_t scratch_bytes = pack_scratch(group.job).bytes;
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
  // Sides that build on others come last.
  for (const bool based : {false, true})
    for (const NewSide& side : plan.sides)
      if (!side.sources.empty() && (side.base >= 0) == based) add(plan, side, sides);
  if (!row_addresses_.empty()) rows_.upload(row_addresses_);
  std::vector<PackSide> all;
  for (Group& group : groups_)
    for (std::size_t i = 0; i < group.sides.size(); ++i) {
      if (group.first_row[i] != kNoRows) group.sides[i].rows = rows_.data() + group.first_row[i];
      if (group.first_other[i] != kNoRows) group.sides[i].other_rows = rows_.data() + group.first_other[i];
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
