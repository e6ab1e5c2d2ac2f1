#include "runtime/kv/device_attention.h"

#include <fmt/format.h>

#include <algorithm>
#include <optional>

#include "kernels/check.h"
#include "kernels/packed_math.h"
#include "runtime/error.h"

namespace kva {
namespace {

constexpr std::string_view kPurpose = "attention workspace";
constexpr int kMostHeadDim = 256;

std::size_t index(int64_t at) { return static_cast<std::size_t>(at); }

// The kind of pages as they fill.
SideKind open_kind(const SideCodec& codec, int page_tokens, int head_dim) {
  const std::optional<SideFormat> format = codec.device_format(page_tokens, head_dim);
  KVA_CHECK(format && !is_packed(format->kind), "pages fill in a dense type");
  return format->kind;
}

// How a device reads a side that builds on no other.
std::optional<SideFormat> own_format(const NewSide& side) {
  return side.codec->device_format(side.tokens, side.width);
}

bool has_channels(const std::optional<SideFormat>& base) { return base && is_by_channel(base->kind); }

}  // namespace

void check_device_options(const KvCacheOptions& options) {
  const auto refuse = [&](const std::string& what) {
    throw InputError(
        fmt::format("{}: {} cannot do this yet; use --device cpu", what, options.backend->name()));
  };
  if (options.page_tokens > kMostPageTokens)
    refuse(fmt::format("pages of {} tokens (more than {})", options.page_tokens, kMostPageTokens));
  if (options.head_dim % 8 != 0 || options.head_dim > kMostHeadDim)
    refuse(fmt::format("heads of {} numbers (no multiple of 8 up to {})", options.head_dim, kMostHeadDim));
  for (const auto& codec : {options.k_codec, options.v_codec}) {
    const auto format = codec->device_format(options.page_tokens, options.head_dim);
    if (!format || is_packed(format->kind)) refuse("pages of " + codec->name());
  }
}

void check_device_plan(const Plan& plan, const KvCacheOptions& options) {
  for (const NewSide& side : plan.sides) {
    const SideCodec& codec = *side.codec;
    std::optional<SideFormat> format, base;
    if (side.tokens > 0 && side.tokens <= kMostPageTokens) {
      if (side.base >= 0) base = own_format(plan.sides[index(side.base)]);
      format = side.base < 0 ? own_format(side)
               : base        ? codec.device_format_on(*base, side.tokens, side.width)
                             : std::nullopt;
    }
    if (!format || (side.lane == Lane::kValues && (is_by_channel(format->kind) || has_channels(base))) ||
        (format->hadamard && format->width > kMostHadamard))
      throw InputError(fmt::format("pages of {}: {} cannot read these yet; use --device cpu", codec.name(),
                                   options.backend->name()));
  }
}

DeviceAttention::DeviceAttention(const KvCacheOptions& options, PageStore& store, Backend& backend,
                                 Backend& host)
    : options_(options),
      store_(store),
      device_(*backend.device()),
      tables_(store, backend, host, options.layers, options.kv_heads, options.positions),
      masses_(store, backend, options.layers, options.heads, options.kv_heads),
      plans_(options, tables_, masses_, backend),
      frequencies_(backend, kPurpose),
      positions_(backend, kPurpose),
      offsets_(backend, kPurpose),
      query_positions_(backend, kPurpose),
      targets_(backend, kPurpose),
      queries_(backend, kPurpose),
      coordinates_(backend, kPurpose),
      states_(backend, kPurpose) {
  append_.kv_heads = options.kv_heads;
  append_.head_dim = options.head_dim;
  append_.key_kind = open_kind(*options.k_codec, options.page_tokens, options.head_dim);
  append_.value_kind = open_kind(*options.v_codec, options.page_tokens, options.head_dim);
  if (!options.rope) return;
  frequencies_.upload(options.rope->inverse_frequencies());
  append_.inverse_frequencies = frequencies_.data();
  append_.rotary_dim = options.rope->rotary_dim();
  if (options.key_basis == KeyBasis::kPageRelative) turning_ = KeyTurning::kByPage;
  if (options.key_basis == KeyBasis::kPlain) turning_ = KeyTurning::kByToken;
}

void DeviceAttention::begin_step(const SpansOf& spans, int64_t rows) {
  masses_.forget_step();
  if (rows == 0) return;
  place_rows(spans(0), rows);
  row_targets_.resize(index(options_.layers * rows * options_.kv_heads));
  for (int layer = 0; layer < options_.layers; ++layer) aim(layer, spans(layer), rows);
  targets_.upload(row_targets_);
  tables_.update(spans);
  if (options_.positions == PositionMode::kCacheRelative) place_queries(spans, rows);
  plans_.make(spans);
  masses_.begin_step(spans, rows, [&](int layer) -> const MassPlan& { return plans_.of(layer).masses; });
  states_.reserve(plans_.most_states() * (options_.head_dim + 2));
  coordinates_.reserve(plans_.most_coordinates());
}

// Where the step's rows stand, in the text and in their pages: the same in all layers.
void DeviceAttention::place_rows(std::span<const DeviceSpan> spans, int64_t rows) {
  std::vector<int64_t> positions(index(rows));
  for (const DeviceSpan& of : spans)
    for (int64_t t = 0; t < of.span.tokens; ++t) positions[index(of.span.first_row + t)] = of.span.start + t;
  positions_.upload(positions);
  if (turning_ != KeyTurning::kByPage) return;
  for (int64_t& position : positions) position %= options_.page_tokens;  // pages fill before others begin
  offsets_.upload(positions);
}

// Which positions the step's queries have among what their tables, which are up to date, still hold.
void DeviceAttention::place_queries(const SpansOf& spans, int64_t rows) {
  std::vector<int64_t> positions(index(options_.layers * rows * options_.kv_heads));
  for (int layer = 0; layer < options_.layers; ++layer)
    for (const DeviceSpan& of : spans(layer))
      for (int h = 0; h < options_.kv_heads; ++h) {
        const int64_t lost = of.tables[index(h)].end - tables_.held_tokens(layer, of.span.sequence, h);
        for (int64_t t = 0; t < of.span.tokens; ++t)
          positions[index((layer * rows + of.span.first_row + t) * options_.kv_heads + h)] =
              of.span.start + t - lost;
      }
  query_positions_.upload(positions);
}

// Where the layer's rows go.
void DeviceAttention::aim(int layer, std::span<const DeviceSpan> spans, int64_t rows) {
  const int64_t heads = options_.kv_heads;
  AppendTarget* targets = row_targets_.data() + layer * rows * heads;
  const int64_t key_bytes = options_.k_codec->bytes(1, options_.head_dim);
  const int64_t value_bytes = options_.v_codec->bytes(1, options_.head_dim);
  for (const DeviceSpan& of : spans)
    for (int64_t h = 0; h < heads; ++h) {
      // Pages that the step's tokens are in: the last ones, without gaps.
      auto page = std::prev(of.tables[index(h)].pages.end());
      while (page->start > of.span.start) --page;
      for (int64_t t = 0; t < of.span.tokens; ++page) {
        std::byte* keys = store_.writable_payload(page->k);
        std::byte* values = store_.writable_payload(page->v);
        for (; t < of.span.tokens && of.span.start + t < page->end(); ++t) {
          const int64_t at = of.span.start + t - page->start;
          targets[(of.span.first_row + t) * heads + h] = {keys + at * key_bytes, values + at * value_bytes};
        }
      }
    }
}

void DeviceAttention::append(int layer, MatView<const float> k, MatView<const float> v) {
  KVA_CHECK(k.stride == k.cols && v.stride == v.cols, "rows without gaps");
  if (k.rows == 0) return;
  AppendJob job = append_;
  job.keys = k.data;
  job.values = v.data;
  job.rows = k.rows;
  job.targets = targets_.data() + layer * k.rows * options_.kv_heads;
  job.turns = turning_ == KeyTurning::kByPage ? offsets_.data() : positions_.data();
  if (turning_ == KeyTurning::kByToken) job.rotary_dim = 0;
  device_.append(job);
}

// The queries at their positions; q itself where the model has none of this kind, or attention turns them.
const float* DeviceAttention::turned(int layer, MatView<const float> q) {
  if (!options_.rope || turning_ == KeyTurning::kByPage) return q.data;
  queries_.reserve(q.rows * q.cols);
  device_.copy(queries_.data(), q.data, q.rows * q.cols * int64_t{sizeof(float)});
  // Heads of one table as a row, where tables have positions of their own.
  const bool counted = options_.positions == PositionMode::kCacheRelative;
  const int64_t tables = counted ? options_.kv_heads : 1;
  device_.rotate(
      {.x = {queries_.data(), DType::kF32, q.rows * tables, q.cols / tables, q.cols / tables},
       .positions = counted ? query_positions_.data() + layer * q.rows * tables : positions_.data(),
       .inverse_frequencies = append_.inverse_frequencies,
       .head_dim = options_.head_dim,
       .rotary_dim = append_.rotary_dim});
  return queries_.data();
}

AttentionJob DeviceAttention::job(int layer, const DevicePlan& of, MatView<const float> q) {
  const int64_t dim = options_.head_dim;
  return {.items = of.items.data(),
          .page_list = of.page_list.data(),
          .pages = tables_.pages(layer),
          .formats = tables_.device_formats(),
          .queries = turned(layer, q),
          .query_stride = q.stride,
          .head_dim = options_.head_dim,
          .group = options_.heads / options_.kv_heads,
          .scale = options_.scale,
          .longest_page = of.plan.longest_page,
          .key_numbers = of.plan.key_numbers,
          .value_numbers = of.plan.value_numbers,
          .lifted_key = of.plan.lifted_key,
          .state_values = states_.data(),
          .state_max = states_.data() + of.plan.states * dim,
          .state_sum = states_.data() + of.plan.states * (dim + 1),
          .projections = of.projections.data(),
          .lifts = of.lifts.data(),
          .coordinate_queries = coordinates_.data(),
          .coordinate_sums = coordinates_.data() + int64_t{of.plan.coordinate_queries} * kUnit,
          .widest = of.plan.widest,
          .turning = turning_,
          .rotary_dim = append_.rotary_dim,
          .inverse_frequencies = append_.inverse_frequencies};
}

void DeviceAttention::attend(int layer, std::span<DeviceSpan> spans, MatView<const float> q,
                             MatView<float> out) {
  KVA_CHECK(q.stride == q.cols, "rows without gaps");
  if (q.rows == 0) return;
  const DevicePlan& of = plans_.of(layer);
  AttentionJob asked = job(layer, of, q);
  asked.masses = masses_.job(layer);
  device_.attend(of.plan, asked, of.merges.data(), out.data, out.stride);
  masses_.attended(layer, spans);
}

void DeviceAttention::end_step(const SpansOf& spans) { masses_.end_step(spans); }

void DeviceAttention::add_to(ByteLedger& ledger) const {
  tables_.add_to(ledger);
  ledger.workspace += masses_.held_bytes() + plans_.held_bytes();
  for (const int64_t bytes : {frequencies_.held_bytes(), positions_.held_bytes(), offsets_.held_bytes(),
                              query_positions_.held_bytes(), targets_.held_bytes(), queries_.held_bytes(),
                              coordinates_.held_bytes(), states_.held_bytes()})
    ledger.workspace += bytes;
}

}  // namespace kva
