#include "runtime/kv/device_encoder.h"

#include <algorithm>
#include <optional>
#include <utility>

#include "kernels/check.h"
#include "kernels/unpack_lanes.h"
#include "runtime/kv/device_tables.h"
#include "runtime/kv/row_projection.h"
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

// Of a side that codes say all of.
std::optional<SideFormat> coded_format(const PageStore& store, SideId id) {
  if (dense_format(store, id) || store.base(id) != kNoSide) return std::nullopt;
  const auto format = readable_format(store.codec(id), store.tokens(id), store.width(id));
  return format && unpacks(*format) ? format : std::nullopt;
}

bool alike(const PackJob& a, const PackJob& b) {
  return a.format == b.format && a.front == b.front && a.source_kind == b.source_kind &&
         a.tokens == b.tokens && a.blends == b.blends && a.share == b.share && a.basis == b.basis &&
         a.base == b.base;
}
bool alike(const ProjectionJob& a, const ProjectionJob& b) {
  return a.source_kind == b.source_kind && a.cells == b.cells && a.width == b.width && a.rank == b.rank;
}

const RowProjection* projection_of(const NewSide& side) {
  return side.projection ? side.projection.get() : side.codec->projection();
}

}  // namespace

int64_t DeviceEncoder::Group::projection_bytes() const {
  return projection.rank == 0 ? 0 : (projection_numbers(projection) * 4 + 15) / 16 * 16;
}

// Of both rows that are blended.
int64_t DeviceEncoder::Group::unpacked_numbers() const {
  return int64_t{all_tokens(job)} * job.format.width * (job.blends ? 2 : 1);
}

DeviceEncoder::DeviceEncoder(PageStore& store, Backend& backend)
    : store_(store),
      backend_(backend),
      rows_(backend, kPurpose),
      sides_(backend, kPurpose),
      projected_(backend, kPurpose),
      formats_(backend, kPurpose),
      runs_(backend, kPurpose),
      scratch_(backend, kPurpose),
      refused_(backend, kPurpose) {}

bool DeviceEncoder::codes(const SideCodec& codec, std::span<const SideTokens> sources,
                          const RowProjection* projection, const PageStore& store) {
  if (sources.empty()) return false;
  const SideCodec& open = store.codec(sources[0].side);
  // Of any number of tokens; where the longest page is rows, any is.
  const bool moves =
      projection ? holds_rows(codec.device_format(kMostPageTokens, projection->rank())) : &codec == &open;
  if (!codec.device_codes() && !moves) return false;
  if (codec.device_codes() && !projection && !codec.projection() &&
      std::all_of(sources.begin(), sources.end(),
                  [&](const SideTokens& of) { return coded_format(store, of.side).has_value(); }))
    return true;
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
  const auto rows = dense_format(store_, side.sources[0].side);
  job.source_kind = rows ? rows->kind : SideKind::kF32;
  job.tokens = static_cast<int32_t>(side.tokens);
  job.blends = !side.others.empty();
  job.share = side.share;
  return job;
}

// Coefficients are what is coded then, as numbers of no basis.
ProjectionJob DeviceEncoder::projection_for(const NewSide& side, PackJob& job) {
  ProjectionJob projection;
  const RowProjection* by = projection_of(side);
  if (!by) return projection;
  projection.source_kind = std::exchange(job.source_kind, SideKind::kF32);
  projection.cells = static_cast<int32_t>(by->cells());
  projection.width = static_cast<int32_t>(by->width());
  projection.rank = static_cast<int32_t>(by->rank());
  projection.tokens = job.tokens;
  job.format.on_basis = false;
  job.basis = nullptr;
  return projection;
}

DeviceEncoder::Group& DeviceEncoder::group_of(const PackJob& job, const ProjectionJob& projection,
                                              bool unpacked) {
  for (Group& group : groups_)
    if (group.unpacked == unpacked && alike(group.job, job) && alike(group.projection, projection))
      return group;
  return groups_.emplace_back(Group{.job = job, .projection = projection, .unpacked = unpacked});
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
  PackJob job = job_of(plan, side);
  const ProjectionJob projection = projection_for(side, job);
  const bool unpacked = !dense_format(store_, side.sources[0].side);
  Group& group = group_of(job, projection, unpacked);
  PackSide packed{.payload =
                      store_.uncoded_payload(ids[static_cast<std::size_t>(&side - plan.sides.data())])};
  if (side.base >= 0) packed.base = store_.data(ids[static_cast<std::size_t>(side.base)]).payload;
  if (projection.rank > 0) return add_projected(group, side, packed);
  if (unpacked) return add_unpacked(group, side, packed);
  for (const auto& tokens : {side.sources, side.others}) {
    int64_t count = 0;
    for (const SideTokens& of : tokens) count += of.count;
    KVA_CHECK(count == side.tokens || tokens.empty(), "as many tokens as the side has");
  }
  const int64_t row_bytes = side.width * side_bits(group.job.source_kind) / 8;
  group.first_row.push_back(place_rows(side.sources, row_bytes, packed.source));
  group.first_other.push_back(place_rows(side.others, row_bytes, packed.other_source));
  group.sides.push_back(packed);
}

// Its cells' tokens come one cell after the other, and are read token by token.
void DeviceEncoder::add_projected(Group& group, const NewSide& side, PackSide packed) {
  const ProjectionJob& of_group = group.projection;
  const auto cells = static_cast<std::size_t>(of_group.cells), tokens = static_cast<std::size_t>(side.tokens);
  const int64_t row_bytes = int64_t{of_group.width} * side_bits(of_group.source_kind) / 8;
  const std::size_t first_row = row_addresses_.size();
  row_addresses_.resize(first_row + cells * tokens);
  std::size_t at = 0;
  for (const SideTokens& of : side.sources) {
    KVA_CHECK(store_.width(of.side) == of_group.width, "tokens of the cells");
    const std::byte* row = store_.data(of.side).payload + of.first * row_bytes;
    for (int32_t t = 0; t < of.count; ++t, ++at, row += row_bytes) {
      KVA_CHECK(at < cells * tokens, "as many tokens of each cell as the side has");
      row_addresses_[first_row + at % tokens * cells + at / tokens] = row;
    }
  }
  KVA_CHECK(at == cells * tokens, "as many tokens of each cell as the side has");
  const DeviceBasis basis = projection_of(side)->device_basis();
  group.projected.push_back(
      {.basis = reinterpret_cast<const uint16_t*>(basis.array->on_device() + basis.offset)});
  group.sides.push_back(packed);
  group.first_row.push_back(first_row);
  group.first_other.push_back(kNoRows);
}

int32_t DeviceEncoder::format_of(SideId id) {
  const SideFormat format = coded_format(store_, id).value();
  const auto at = std::find(coded_formats_.begin(), coded_formats_.end(), format) - coded_formats_.begin();
  if (at == std::ssize(coded_formats_)) coded_formats_.push_back(format);
  return static_cast<int32_t>(at);
}

void DeviceEncoder::add_unpacked(Group& group, const NewSide& side, PackSide packed) {
  int64_t token = 0;
  for (const auto& tokens : {side.sources, side.others})
    for (const SideTokens& of : tokens) {
      KVA_CHECK(store_.width(of.side) == side.width, "tokens of the side's width");
      group.runs.push_back({.side = store_.data(of.side).payload,
                            .format = format_of(of.side),
                            .first = of.first,
                            .tokens = of.count});
      token += of.count;
    }
  KVA_CHECK(token * side.width == group.unpacked_numbers(), "as many tokens as the side has");
  group.first_run.push_back(group.runs.size());
  group.sides.push_back(packed);
  group.first_row.push_back(kNoRows);
  group.first_other.push_back(kNoRows);
}

void DeviceEncoder::reserve_scratch() {
  int64_t most = 0;
  for (Group& group : groups_) {
    const int64_t each = group.pack_bytes() + group.projection_bytes() + group.unpacked_bytes();
    const auto count = std::ssize(group.sides);
    group.at_once = each == 0 ? count : std::clamp<int64_t>(kMostScratch / each, 1, count);
    most = std::max(most, group.at_once * each);
  }
  scratch_.reserve(most);
}

// Once the addresses of rows and the scratch are there: what is coded first lies in front of it.
void DeviceEncoder::settle(Group& group) {
  std::byte* made = scratch_.data() + group.at_once * group.pack_bytes();
  const int64_t made_bytes = group.projection_bytes() + group.unpacked_bytes();
  const auto listed = [&](std::size_t first) { return first == kNoRows ? nullptr : rows_.data() + first; };
  for (std::size_t i = 0; i < group.sides.size(); ++i) {
    auto* numbers = reinterpret_cast<float*>(made + static_cast<int64_t>(i) % group.at_once * made_bytes);
    if (group.unpacked) {
      settle_unpacked(group, i, numbers);
      continue;
    }
    if (group.projection.rank == 0) {
      group.sides[i].rows = listed(group.first_row[i]);
      group.sides[i].other_rows = listed(group.first_other[i]);
      continue;
    }
    ProjectionSide& side = group.projected[i];
    side.rows = listed(group.first_row[i]);
    side.coefficients = numbers;
    side.residual = side.coefficients + int64_t{group.projection.tokens} * group.projection.rank;
    group.sides[i].source = reinterpret_cast<const std::byte*>(side.coefficients);
  }
}

void DeviceEncoder::settle_unpacked(Group& group, std::size_t index, float* numbers) {
  PackSide& side = group.sides[index];
  side.source = reinterpret_cast<const std::byte*>(numbers);
  if (group.job.blends)
    side.other_source = reinterpret_cast<const std::byte*>(numbers + group.unpacked_numbers() / 2);
  for (std::size_t run = group.first_run[index]; run < group.first_run[index + 1]; ++run) {
    group.runs[run].rows = numbers;
    numbers += int64_t{group.runs[run].tokens} * group.job.format.width;
  }
}

void DeviceEncoder::unpack(const Group& group, int64_t first, int64_t count, int64_t first_run) {
  const std::size_t begin = group.first_run[static_cast<std::size_t>(first)];
  const std::size_t end = group.first_run[static_cast<std::size_t>(first + count)];
  backend_.device()->unpack({.formats = formats_.data(),
                             .runs = runs_.data() + first_run + static_cast<int64_t>(begin),
                             .count = static_cast<int32_t>(end - begin)});
}

void DeviceEncoder::launch(const Group& group, int64_t first_side, int64_t first_projected,
                           int64_t first_run) {
  PackJob job = group.job;
  job.scratch = scratch_.data();
  job.refused = refused_.data();
  ProjectionJob projection = group.projection;
  projection.refused = refused_.data();
  const auto count = std::ssize(group.sides);
  for (int64_t at = 0; at < count; at += group.at_once) {
    job.sides = sides_.data() + first_side + at;
    job.count = static_cast<int32_t>(std::min(group.at_once, count - at));
    if (projection.rank > 0) {
      projection.sides = projected_.data() + first_projected + at;
      projection.count = job.count;
      backend_.device()->project(projection);
    }
    if (group.unpacked) unpack(group, at, job.count, first_run);
    backend_.device()->pack(job);
  }
}

bool DeviceEncoder::code(const Plan& plan, std::span<const SideId> sides) {
  groups_.clear();
  row_addresses_.clear();
  coded_formats_.clear();
  // Sides that build on others come last.
  for (const bool based : {false, true})
    for (const NewSide& side : plan.sides)
      if (!side.sources.empty() && (side.base >= 0) == based) add(plan, side, sides);
  if (!row_addresses_.empty()) rows_.upload(row_addresses_);
  reserve_scratch();
  std::vector<PackSide> all;
  std::vector<ProjectionSide> all_projected;
  std::vector<UnpackRun> all_runs;
  for (Group& group : groups_) {
    settle(group);
    all.insert(all.end(), group.sides.begin(), group.sides.end());
    all_projected.insert(all_projected.end(), group.projected.begin(), group.projected.end());
    all_runs.insert(all_runs.end(), group.runs.begin(), group.runs.end());
  }
  sides_.upload(all);
  projected_.upload(all_projected);
  formats_.upload(coded_formats_);
  runs_.upload(all_runs);
  int32_t refused = 0;
  refused_.upload({&refused, 1});
  int64_t first = 0, first_projected = 0, first_run = 0;
  for (const Group& group : groups_) {
    launch(group, first, first_projected, first_run);
    first += std::ssize(group.sides);
    first_projected += std::ssize(group.projected);
    first_run += std::ssize(group.runs);
  }
  backend_.download(&refused, refused_.data(), sizeof(refused));
  return refused != 0;
}

void DeviceEncoder::add_to(ByteLedger& ledger) const {
  for (const int64_t bytes :
       {rows_.held_bytes(), sides_.held_bytes(), projected_.held_bytes(), formats_.held_bytes(),
        runs_.held_bytes(), scratch_.held_bytes(), refused_.held_bytes()})
    ledger.workspace += bytes;
}

}  // namespace kva
