#include "compressors/draft.h"

#include <fmt/format.h>

#include <algorithm>
#include <string>
#include <utility>

#include "kernels/check.h"
#include "kernels/directions.h"
#include "runtime/error.h"

namespace kva {
namespace {

struct Encoded {
  std::shared_ptr<const SideCodec> codec;  // null: the stream stays as it is
  std::vector<std::byte> payload;
  std::vector<SideTokens> sources;  // in place of the payload: the cache codes them
  std::vector<SideTokens> others;   // NewSide::others
  bool unchanged = false;           // encoded only to be compared: the live side holds the same already
};

std::shared_ptr<const SideCodec> open_codec(const Cell& cell, const KvCache& cache) {
  return cell.side == Side::kKey ? cache.options().k_codec : cache.options().v_codec;
}

std::vector<float> page_rows(const KvCache& cache, const PageAddress& at, int64_t tokens, int64_t width) {
  std::vector<float> rows(static_cast<std::size_t>(tokens * width));
  cache.read_page(at.sequence, at.layer, at.kv_head, at.page, at.side,
                  MatView<float>(rows.data(), tokens, width));
  return rows;
}

class Planner {
 public:
  Planner(const Draft& draft, const KvCache& cache, ThreadPool& pool)
      : draft_(draft),
        cache_(cache),
        pool_(pool),
        encoded_(draft.streams.size()),
        new_sides_(draft.streams.size(), -1) {}

  Plan make() {
    // Those that others build on come first: encoding may read the base.
    for (const bool shared : {true, false}) {
      encode(shared);
      for (std::size_t i = 0; i < draft_.streams.size(); ++i)
        if (draft_.streams[i].shared == shared && !draft_.streams[i].dropped()) add(i);
    }
    for (const PlanRewrite& rewrite : plan_.rewrites)
      KVA_CHECK(
          (rewrite.k >= 0 || rewrite.alias_k != kNoSide) && (rewrite.v >= 0 || rewrite.alias_v != kNoSide),
          "both sides of a table lose the same tokens");
    return std::move(plan_);
  }

 private:
  void encode(bool shared) {
    pool_.parallel_for(static_cast<int64_t>(draft_.streams.size()), [&](int64_t index, int) {
      const DraftStream& stream = draft_.streams[static_cast<std::size_t>(index)];
      if (stream.shared != shared || stream.dropped() || stream.alias != kNoSide) return;
      encode(stream, encoded_[static_cast<std::size_t>(index)]);
    });
  }

  void encode(const DraftStream& stream, Encoded& into) const {
    into.codec = codec_of(stream, cache_);
    if (!into.codec) {
      if (stream.equals.empty()) return;
      into.codec = open_codec(stream.origin, cache_);
      into.unchanged = true;
    }
    if (!stream.payload.empty()) {
      into.payload = stream.payload;
      return;
    }
    if (stream.unread) {
      if (stream.projection)
        encode_projected(stream, into);
      else if (stream.base < 0 || into.codec->bytes(stream.tokens, stream.width) > 0)
        encode_unread(stream, into);
      return;
    }
    into.payload = encoded_payload(stream.origin, draft_.start, stream.view(), *into.codec, base_of(stream));
  }

  SideData base_of(const DraftStream& stream) const {
    if (stream.base < 0) return {};
    const NewSide& from =
        plan_.sides[static_cast<std::size_t>(new_sides_[static_cast<std::size_t>(stream.base)])];
    KVA_CHECK(from.sources.empty(), "a base that the cache codes has none on it but such");
    return {.base = from.payload.data(), .base_codec = from.codec.get()};
  }

  // A stream that is its origin's page as the cache has it, or lies between two of them. The cache codes what
  // builds on a base that it codes, since both are made of the same pages.
  void encode_unread(const DraftStream& stream, Encoded& into) const {
    const auto tokens = [&](const Cell& cell) {
      return SideTokens{cache_.page(draft_.address(cell)).side, 0, static_cast<int32_t>(stream.tokens)};
    };
    into.sources = {tokens(stream.origin)};
    if (stream.towards) into.others = {tokens(*stream.towards)};
    std::vector<SideTokens> all(into.sources);
    all.insert(all.end(), into.others.begin(), into.others.end());
    if (cache_.codes_itself(*into.codec, all)) return;
    into.sources.clear();
    into.others.clear();
    const std::vector<float> rows = unread_rows(stream);
    into.payload = encoded_payload(stream.origin, draft_.start,
                                   MatView<const float>(rows.data(), stream.tokens, stream.width),
                                   *into.codec, base_of(stream));
  }

  std::vector<float> unread_rows(const DraftStream& stream) const {
    std::vector<float> rows = page_rows(cache_, draft_.address(stream.origin), stream.tokens, stream.width);
    if (!stream.towards) return rows;
    const std::vector<float> others =
        page_rows(cache_, draft_.address(*stream.towards), stream.tokens, stream.width);
    std::vector<float> between(rows.size());
    const auto view = [&](auto& of) { return MatView(of.data(), stream.tokens, stream.width); };
    directions_between(view(std::as_const(rows)), view(others), stream.share, view(between));
    return between;
  }

  void encode_projected(const DraftStream& stream, Encoded& into) const {
    for (const Cell& cell : stream.joined)
      into.sources.push_back(
          {cache_.page(draft_.address(cell)).side, 0, static_cast<int32_t>(stream.tokens)});
    if (cache_.codes_itself(*into.codec, into.sources, stream.projection.get())) return;
    into.sources.clear();
    const int64_t width = stream.projection->width(), cells = stream.projection->cells();
    std::vector<float> joined(static_cast<std::size_t>(stream.tokens * cells * width));
    for (int64_t i = 0; i < cells; ++i) {
      const Cell& cell = stream.joined[static_cast<std::size_t>(i)];
      const std::vector<float> rows = page_rows(cache_, draft_.address(cell), stream.tokens, width);
      for (int64_t t = 0; t < stream.tokens; ++t)
        std::copy_n(rows.data() + t * width, width, joined.data() + (t * cells + i) * width);
    }
    std::vector<float> coefficients(static_cast<std::size_t>(stream.tokens * stream.width));
    at_page(stream.origin, draft_.start, [&] {
      stream.projection->project(MatView<const float>(joined.data(), stream.tokens, cells * width),
                                 MatView<float>(coefficients.data(), stream.tokens, stream.width));
    });
    into.payload = encoded_payload(stream.origin, draft_.start,
                                   MatView<const float>(coefficients.data(), stream.tokens, stream.width),
                                   *into.codec, {});
  }

  // A live side that the stream can share, or none.
  SideId alias_of(const DraftStream& stream, const Encoded& encoded) const {
    if (stream.alias != kNoSide) return stream.alias;
    for (const PageAddress& at : stream.equals) {
      const PageFacts facts = cache_.page(at);
      if (!facts.open && facts.tokens == stream.tokens &&
          cache_.holds(facts.side, *encoded.codec, encoded.payload))
        return facts.side;
    }
    // Several cells of one content that stays as it is share the side of the first.
    if ((!encoded.codec || encoded.unchanged) && stream.cells.size() > 1)
      return cache_.page(draft_.address(stream.origin)).side;
    return kNoSide;
  }

  void add(std::size_t index) {
    const DraftStream& stream = draft_.streams[index];
    Encoded& encoded = encoded_[index];
    const SideId alias = alias_of(stream, encoded);
    if (alias == kNoSide) {
      if (!encoded.codec || encoded.unchanged) return;
      new_sides_[index] = static_cast<int>(plan_.sides.size());
      plan_.sides.push_back(
          {.codec = std::move(encoded.codec),
           .lane = lane_of(stream),
           .tokens = stream.tokens,
           .width = stream.width,
           .payload = std::move(encoded.payload),
           .sources = std::move(encoded.sources),
           .others = std::move(encoded.others),
           .share = stream.share,
           .projection = stream.projection,
           .base = stream.base < 0 ? -1 : new_sides_[static_cast<std::size_t>(stream.base)]});
    }
    for (const Cell& cell : stream.cells) {
      const DraftPlaces* places = draft_.places_of(cell.layer, cell.kv_head);
      if (places && places->changed)
        rewrite(cell, *places, new_sides_[index], alias);
      else if (alias == kNoSide || cache_.page(draft_.address(cell)).side != alias)
        plan_.edits.push_back({.at = draft_.address(cell), .new_side = new_sides_[index], .alias = alias});
    }
  }

  // One side of a table's page that is made anew; K and V of a table meet here.
  void rewrite(const Cell& cell, const DraftPlaces& places, int new_side, SideId alias) {
    auto found = std::find_if(plan_.rewrites.begin(), plan_.rewrites.end(), [&](const PlanRewrite& of) {
      return of.layer == cell.layer && of.kv_head == cell.kv_head;
    });
    if (found == plan_.rewrites.end())
      found = plan_.rewrites.insert(found, {.sequence = draft_.sequence,
                                            .layer = cell.layer,
                                            .kv_head = cell.kv_head,
                                            .first_page = draft_.address(cell).page,
                                            .pages = 1,
                                            .positions = places.positions,
                                            .biases = places.biases});
    (cell.side == Side::kKey ? found->k : found->v) = new_side;
    (cell.side == Side::kKey ? found->alias_k : found->alias_v) = alias;
  }

  const Draft& draft_;
  const KvCache& cache_;
  ThreadPool& pool_;
  std::vector<Encoded> encoded_;
  std::vector<int> new_sides_;  // of each stream; -1: none
  Plan plan_;
};

void place_in_tables(Draft& draft, const KvCache& cache, std::span<const Cell> cells) {
  draft.kv_heads = cache.options().kv_heads;
  draft.table_pages.resize(static_cast<std::size_t>(cache.options().layers) *
                           static_cast<std::size_t>(draft.kv_heads));
  for (const Cell& cell : cells)
    draft.table_pages[draft.table_of(cell)] =
        page_in_table(cache, draft.sequence, cell.layer, cell.kv_head, draft.page);
}

}  // namespace

Lane lane_of(const DraftStream& stream) {
  if (stream.shared) return Lane::kShared;
  return stream.origin.side == Side::kKey ? Lane::kKeys : Lane::kValues;
}

std::shared_ptr<const SideCodec> codec_of(const DraftStream& stream, const KvCache& cache) {
  if (stream.codec) return stream.codec;
  std::shared_ptr<const SideCodec> codec = stream.format;
  if (!codec && stream.changed && stream.wraps.empty()) codec = open_codec(stream.origin, cache);
  if (!codec && (!stream.wraps.empty() || stream.shared)) codec = make_dense_codec(DType::kF16);
  for (auto wrap = stream.wraps.rbegin(); wrap != stream.wraps.rend(); ++wrap) codec = (*wrap)(codec);
  return codec;
}

void at_page(const Cell& cell, int64_t position, const std::function<void()>& call) {
  try {
    call();
  } catch (const InputError& error) {
    throw InputError(
        fmt::format("{} of the page at position {}: {}", cell_name(cell), position, error.what()));
  }
}

std::vector<std::byte> encoded_payload(const Cell& cell, int64_t position, MatView<const float> rows,
                                       const SideCodec& codec, const SideData& base) {
  std::vector<std::byte> payload(static_cast<std::size_t>(codec.bytes(rows.rows, rows.cols)));
  at_page(cell, position, [&] { codec.encode(rows, base, payload.data()); });
  return payload;
}

std::string cell_name(const Cell& cell) { return side_name(cell.layer, cell.kv_head, cell.side); }

PageAddress Draft::address(const Cell& cell) const {
  return {sequence, cell.layer, cell.kv_head, table_pages[table_of(cell)], cell.side};
}

DraftStream* Draft::stream_of(const Cell& cell) {
  for (DraftStream& stream : streams)
    if (std::find(stream.cells.begin(), stream.cells.end(), cell) != stream.cells.end()) return &stream;
  return nullptr;
}

const DraftPlaces* Draft::places_of(int layer, int kv_head) const {
  for (const DraftPlaces& of : places)
    if (of.layer == layer && of.kv_head == kv_head) return &of;
  return nullptr;
}

bool Draft::same_places(const Cell& a, const Cell& b) const {
  const DraftPlaces* of_a = places_of(a.layer, a.kv_head);
  const DraftPlaces* of_b = places_of(b.layer, b.kv_head);
  if (!of_a || !of_b) return of_a == of_b;
  return of_a->positions == of_b->positions && of_a->biases == of_b->biases;
}

void Draft::place(DraftPlaces added) {
  KVA_CHECK(!added.positions.empty() && added.positions.size() == added.biases.size(),
            "a page keeps a token, and each token has a bias");
  added.changed = true;
  for (DraftPlaces& of : places)
    if (of.layer == added.layer && of.kv_head == added.kv_head) {
      of = std::move(added);
      return;
    }
  places.push_back(std::move(added));
}

int64_t page_in_table(const KvCache& cache, SequenceId sequence, int layer, int kv_head, int64_t page) {
  const int64_t page_tokens = cache.options().page_tokens;
  const int64_t filled = (cache.tokens(sequence) + page_tokens - 1) / page_tokens;
  return cache.pages(sequence, layer, kv_head) - (filled - page);
}

Draft read_draft(const KvCache& cache, SequenceId sequence, int64_t page, std::span<const Cell> cells,
                 ThreadPool& pool, bool numbers) {
  const int64_t page_tokens = cache.options().page_tokens;
  Draft draft{.sequence = sequence, .page = page, .start = page * page_tokens, .tokens = page_tokens};
  place_in_tables(draft, cache, cells);
  draft.streams.resize(cells.size());
  pool.parallel_for(static_cast<int64_t>(cells.size()), [&](int64_t index, int) {
    const Cell& cell = cells[static_cast<std::size_t>(index)];
    DraftStream& stream = draft.streams[static_cast<std::size_t>(index)];
    const PageAddress at = draft.address(cell);
    stream.tokens = cache.page(at).tokens;
    stream.width = cache.options().head_dim;
    stream.origin = cell;
    stream.cells = {cell};
    stream.unread = !numbers;
    if (numbers) stream.rows = page_rows(cache, at, stream.tokens, stream.width);
  });
  for (const Cell& cell : cells) {
    const PageFacts facts = cache.page(draft.address(cell));
    if (facts.contiguous || draft.places_of(cell.layer, cell.kv_head)) continue;
    draft.places.push_back(
        {.layer = cell.layer, .kv_head = cell.kv_head, .positions = facts.positions, .biases = facts.biases});
  }
  return draft;
}

Plan plan_of(const Draft& draft, const KvCache& cache, ThreadPool& pool) {
  return Planner(draft, cache, pool).make();
}

}  // namespace kva
