#include "runtime/kv/device_tables.h"

#include <fmt/format.h>

#include <algorithm>
#include <limits>
#include <optional>

#include "kernels/check.h"
#include "kernels/device_ops.h"
#include "runtime/error.h"
#include "runtime/kv/side_memory.h"

namespace kva {
namespace {

std::size_t index(int64_t at) { return static_cast<std::size_t>(at); }

// Where sequences bring formats of their own, those of sequences that are gone are forgotten at times.
constexpr std::size_t kManyFormats = 4096;

// So many neighbouring entries are worth an upload of their own.
constexpr int64_t kWorthUpload = 64;
// So many wait at most, whatever changes.
constexpr int64_t kMostStaged = 1 << 14;

// Room to grow by a sixteenth: growing lays everything out anew, and recordings do not outlive that.
int64_t roomy(int64_t pages) { return pages + pages / 16 + 8; }

// Leaves the shapes of the first `wanted` of `pages` pages.
void cut(CountedVector<PageShape>& shapes, int64_t pages, int64_t wanted) {
  for (; pages > wanted; shapes.pop_back()) {
    PageShape& last = shapes.back();
    const int64_t gone = std::min(last.pages, pages - wanted);
    pages -= gone;
    last.pages -= gone;
    if (last.pages > 0) return;
  }
}

}  // namespace

std::optional<SideFormat> readable_format(const SideCodec& codec, int64_t tokens, int64_t width) {
  if (const DeviceBasis basis = codec.device_basis(); basis.array) basis.array->on_device();
  std::optional<SideFormat> format = codec.device_format(tokens, width);
  if (!format) return format;
  const DeviceArrays arrays = codec.device_arrays();
  for (std::size_t i = 0; i < arrays.size(); ++i)
    if (arrays[i]) format->shared[i] = arrays[i]->on_device();
  return format;
}

DeviceTables::DeviceTables(const PageStore& store, Backend& backend, Backend& host, int layers, int kv_heads,
                           PositionMode positions)
    : store_(store),
      backend_(backend),
      host_(host),
      layers_(layers),
      kv_heads_(kv_heads),
      positions_(positions),
      sequences_(CountingAllocator<Sequence>(host, host_bytes_)),
      entries_(backend, "page tables"),
      device_formats_(backend, "page tables"),
      staged_here_(backend, "page tables"),
      staged_places_here_(backend, "page tables") {}

DeviceTables::Sequence& DeviceTables::sequence(SequenceId id) {
  const CountingAllocator<Table> tables(host_, host_bytes_);
  while (sequences_.size() <= index(id)) sequences_.push_back({.tables = CountedVector<Table>(tables)});
  Sequence& found = sequences_[index(id)];
  if (found.tables.empty())
    found.tables.resize(index(int64_t{layers_} * kv_heads_), Table(CountingAllocator<PageShape>(tables)));
  return found;
}

DeviceTables::Table& DeviceTables::table(int layer, SequenceId id, int kv_head) {
  return sequence(id).tables[index(int64_t{layer} * kv_heads_ + kv_head)];
}

std::span<const PageShape> DeviceTables::shapes(int layer, SequenceId id, int kv_head) const {
  return sequences_[index(id)].tables[index(int64_t{layer} * kv_heads_ + kv_head)].shapes;
}

int64_t DeviceTables::held_tokens(int layer, SequenceId id, int kv_head) const {
  return sequences_[index(id)].tables[index(int64_t{layer} * kv_heads_ + kv_head)].held_tokens;
}

int64_t DeviceTables::counted_tokens(const PageRef& ref) const {
  return ref.tokens - PagePlaces(store_, ref).hidden_tokens();
}

int32_t DeviceTables::place(SequenceId id, int kv_head, int64_t page) const {
  const Sequence& of = sequences_[index(id)];
  return static_cast<int32_t>(of.first + kv_head * of.room + page);
}

void DeviceTables::forget(SequenceId id) {
  if (index(id) >= sequences_.size()) return;
  Sequence& gone = sequences_[index(id)];
  gone.tables = CountedVector<Table>(gone.tables.get_allocator());
  gone.room = 0;
  has_gone_ = true;
}

// Notes how long the layer's tables are.
bool DeviceTables::has_room(int layer, std::span<const DeviceSpan> spans) {
  const int64_t lasts = std::ssize(spans) * kv_heads_;
  bool fits = lasts <= last_places_ && layer_places_ > 0 && !(has_gone_ && formats_.size() > kManyFormats);
  last_places_ = std::max(last_places_, lasts);
  for (const DeviceSpan& of : spans) {
    Sequence& to = sequence(of.span.sequence);
    for (int h = 0; h < kv_heads_; ++h) {
      const int64_t pages = std::ssize(of.tables[index(h)].pages);
      KVA_CHECK(pages > 0, "a table that is read has pages");
      to.tables[index(int64_t{layer} * kv_heads_ + h)].pages = pages;
      fits &= pages - 1 <= to.room;
    }
  }
  return fits;
}

void DeviceTables::lay_out() {
  ++layouts_;
  formats_.clear();
  alike_.clear();
  known_formats_.clear();
  uploaded_formats_ = 0;
  has_gone_ = false;
  int64_t places = last_places_;
  for (Sequence& of : sequences_) {
    int64_t longest = 0;
    for (Table& table : of.tables) {
      longest = std::max(longest, table.pages);
      table.copied = 0;
      table.copied_tokens = 0;
      table.shapes.clear();
      table.bases.clear();
    }
    of.first = places;
    of.room = of.tables.empty() ? 0 : roomy(longest);
    places += of.room * kv_heads_;
  }
  KVA_CHECK(places <= std::numeric_limits<int32_t>::max(), "places that an index reaches");
  entries_.reserve(places * layers_);
  layer_places_ = places;
}

void DeviceTables::update(const SpansOf& spans) {
  bool fits = sound_;
  sound_ = false;
  for (int layer = 0; layer < layers_; ++layer) fits &= has_room(layer, spans(layer));
  if (!fits) lay_out();
  staged_.clear();
  staged_places_.clear();
  for (int layer = 0; layer < layers_; ++layer) update(layer, spans(layer));
  place_staged();
  if (uploaded_formats_ < formats_.size()) {
    device_formats_.upload(formats_);
    uploaded_formats_ = formats_.size();
  }
  sound_ = true;
}

void DeviceTables::update(int layer, std::span<DeviceSpan> spans) {
  for (std::size_t s = 0; s < spans.size(); ++s)
    for (int h = 0; h < kv_heads_; ++h) update(layer, s, spans[s], h);
}

void DeviceTables::put(DevicePage* to, std::span<const DevicePage> pages) {
  const auto count = std::ssize(pages);
  if (count >= kWorthUpload) return backend_.upload(to, pages.data(), count * int64_t{sizeof(DevicePage)});
  for (const DevicePage& page : pages) {
    staged_.push_back(page);
    staged_places_.push_back(to++ - entries_.data());
  }
  if (std::ssize(staged_) >= kMostStaged) place_staged();
}

void DeviceTables::place_staged() {
  if (staged_.empty()) return;
  staged_here_.upload(staged_);
  staged_places_here_.upload(staged_places_);
  backend_.device()->place({.entries = staged_here_.data(),
                            .places = staged_places_here_.data(),
                            .count = std::ssize(staged_),
                            .to = entries_.data()});
  staged_.clear();
  staged_places_.clear();
}

void DeviceTables::update(int layer, std::size_t span, const DeviceSpan& of, int kv_head) {
  PageTable& from = of.tables[index(kv_head)];
  Table& to = table(layer, of.span.sequence, kv_head);
  const int64_t last = std::ssize(from.pages) - 1;
  const int64_t first = std::min({to.copied, int64_t{from.changed_from}, last});
  cut(to.shapes, to.shapes.empty() ? 0 : to.copied + 1, first);
  changed_.clear();
  const bool counts = positions_ == PositionMode::kCacheRelative;
  int64_t held = first == to.copied ? to.copied_tokens : 0;
  for (int64_t page = 0; counts && first != to.copied && page < first; ++page)
    held += counted_tokens(from.pages[index(page)]);
  for (int64_t page = first; page <= last; ++page) {
    DevicePage entry = entry_of(from.pages[index(page)], to);
    if (counts) {
      entry.index = static_cast<int32_t>(held);
      to.copied_tokens = held;
      held += counted_tokens(from.pages[index(page)]);
    }
    PageShape shape{1,
                    entry.tokens,
                    alike_[entry.key_format],
                    alike_[entry.value_format],
                    entry.key_basis,
                    entry.value_basis};
    if (!to.shapes.empty() && to.shapes.back().alike(shape))
      ++to.shapes.back().pages;
    else
      to.shapes.push_back(shape);
    changed_.push_back(entry);
  }
  const std::span<const DevicePage> changed(changed_);
  put(pages(layer) + place(of.span.sequence, kv_head, first), changed.first(changed.size() - 1));
  put(pages(layer) + last_place(span, kv_head), changed.last(1));
  to.copied = last;
  to.held_tokens = held;
  from.changed_from = std::numeric_limits<int32_t>::max();
}

// Which of the table's bases it is.
uint16_t DeviceTables::basis_of(const std::byte* vectors, Table& table) const {
  const auto known = std::find(table.bases.begin(), table.bases.end(), vectors);
  const auto at = known - table.bases.begin() + 1;
  if (at > std::numeric_limits<uint16_t>::max())
    throw InputError(
        fmt::format("{}: expected pages on up to {} bases in a sequence, found more; use --device cpu or a "
                    "larger refresh",
                    backend_.name(), at - 1));
  if (known == table.bases.end()) table.bases.push_back(vectors);
  return static_cast<uint16_t>(at);
}

DeviceTables::SideEntry DeviceTables::side_of(SideId side, Table& table) {
  const SideData data = store_.data(side);
  SideEntry entry{data.payload ? data.payload : data.base, nullptr, format_of(side), 0};
  const SideFormat& format = formats_[entry.format];
  if (format.kind == SideKind::kScaledBase) entry.base = data.base;
  if (!format.on_basis) return entry;
  const DeviceBasis basis = store_.codec(side).device_basis();
  entry.base = basis.array->on_device() + basis.offset;
  entry.basis = basis_of(entry.base, table);
  return entry;
}

DevicePage DeviceTables::entry_of(const PageRef& ref, Table& table) {
  const SideEntry keys = side_of(ref.k, table);
  const SideEntry values = side_of(ref.v, table);
  DevicePage page{.keys = keys.payload,
                  .values = values.payload,
                  .tokens = ref.tokens,
                  .start = ref.start,
                  .key_format = keys.format,
                  .value_format = values.format,
                  .has_places = ref.where != kNoSide,
                  .key_basis = keys.basis,
                  .value_basis = values.basis,
                  .key_base = keys.base,
                  .value_base = values.base};
  if (!page.has_places) return page;
  // As packed_places() lays them out.
  const PagePlaces places(store_, ref);
  const std::byte* at = store_.data(ref.where).payload;
  page.offsets = at;
  page.wide_offsets = places.wide();
  if (!places.biased()) return page;
  page.biases = reinterpret_cast<const float*>(at);
  page.offsets = at + ref.tokens * sizeof(float);
  return page;
}

uint16_t DeviceTables::format_of(SideId side) {
  const SideId base = store_.base(side);
  const SideCodec& codec = store_.codec(side);
  std::optional<SideFormat> format = readable_format(codec, store_.tokens(side), store_.width(side));
  if (base != kNoSide) {
    const auto of_base = readable_format(store_.codec(base), store_.tokens(base), store_.width(base));
    KVA_CHECK(of_base, "a base that device kernels read");
    format = codec.device_format_on(*of_base, store_.tokens(side), store_.width(side));
  }
  KVA_CHECK(format, "a side that device kernels read");
  if (format->kind == SideKind::kScaledBase) format->base = format_of(base);
  SideFormat alike = *format;
  std::fill_n(alike.shared, kSharedArrays, nullptr);
  if (alike.base >= 0) alike.base = alike_[index(alike.base)];
  const uint16_t first = add_format(alike);
  const uint16_t at = add_format(*format);
  alike_[at] = first;
  return at;
}

uint16_t DeviceTables::add_format(const SideFormat& format) {
  const auto known = known_formats_.find(format);
  if (known != known_formats_.end()) return known->second;
  const std::size_t at = formats_.size();
  if (at > std::numeric_limits<uint16_t>::max())
    throw InputError(
        fmt::format("{}: expected pages in up to {} formats at once, found more; use fewer "
                    "sequences at a time or --device cpu",
                    backend_.name(), at));
  formats_.push_back(format);
  alike_.push_back(static_cast<uint16_t>(at));
  return known_formats_[format] = static_cast<uint16_t>(at);
}

void DeviceTables::add_to(ByteLedger& ledger) const {
  ledger.tables += entries_.held_bytes() + device_formats_.held_bytes() + host_bytes_;
  ledger.beside += host_bytes_;
  ledger.workspace += staged_here_.held_bytes() + staged_places_here_.held_bytes();
}

}  // namespace kva
