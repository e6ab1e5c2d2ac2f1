// zstd: what the steps before it store of a page, compressed losslessly (RFC 8878). Pages whose frame is not
// smaller stay as they are.

#include <map>

#include "compressors/codecs/zstd_codec.h"
#include "compressors/method.h"
#include "compressors/step.h"

namespace kva {
namespace {

class ZstdStep : public Step {
 public:
  explicit ZstdStep(const Arguments& arguments)
      : window_(arguments.integer("window")), codecs_(static_cast<int>(arguments.integer("level"))) {}

  int64_t window_tokens() const override { return window_; }

  void outline(const StepContext& context, Draft& draft) override {
    for (DraftStream& stream : draft.streams) {
      if (stream.dropped() || stream.base >= 0) continue;
      const auto inner = codec_of(stream, context.cache);
      stream.codec = codecs_.codec(inner ? inner : context.cache.options().k_codec,
                                   {.bytes = kZstdClassBytes, .raw_bytes = 1});
    }
  }
  void run(const StepContext& context, Draft& draft) override {
    std::vector<Stored> stored(draft.streams.size());
    context.pool.parallel_for(static_cast<int64_t>(stored.size()), [&](int64_t index, int) {
      const auto i = static_cast<std::size_t>(index);
      stored[i] = pack(context, draft, draft.streams[i]);
    });
    lives_.clear();
    for (std::size_t i = 0; i < stored.size(); ++i) {
      ++sides_;
      if (stored[i].packed.payload.empty()) continue;
      ++packed_;
      DraftStream& stream = draft.streams[i];
      stream.codec = codecs_.codec(stored[i].inner, stored[i].packed.shape);
      stream.payload = std::move(stored[i].packed.payload);
      if (stored[i].live == kNoSide) continue;
      lives_.emplace_back(stored[i].live, stream.cells.front());
      if (const auto known = of_live_.find(stored[i].live); known != of_live_.end())
        stream.equals.push_back(known->second);
    }
  }

  void applied(const StepContext&, const Draft& draft) override {
    for (const auto& [live, cell] : lives_) of_live_[live] = draft.address(cell);
  }

  void moved(const StepContext& context, SequenceId sequence) override { forget(context, sequence); }
  void forget(const StepContext&, SequenceId sequence) override {
    std::erase_if(of_live_, [&](const auto& entry) { return entry.second.sequence == sequence; });
  }

  std::vector<std::pair<std::string, double>> counters() const override {
    return {{"zstd.sides", static_cast<double>(sides_)}, {"zstd.packed_sides", static_cast<double>(packed_)}};
  }

 private:
  // What a stream's frame is made of.
  struct Stored {
    std::shared_ptr<const SideCodec> inner;
    ZstdPacked packed;      // empty: the stream stays as it is
    SideId live = kNoSide;  // whose payload was packed, where it was there before
  };

  Stored pack(const StepContext& context, const Draft& draft, const DraftStream& stream) const {
    // What builds on another side is small, and the other side is packed.
    if (stream.dropped() || stream.base >= 0 || stream.alias != kNoSide) return {};
    Stored stored;
    std::vector<std::byte> encoded;
    StoredSide live;
    std::span<const std::byte> payload;
    stored.inner = codec_of(stream, context.cache);
    if (stored.inner) {
      encoded = encoded_payload(stream.origin, draft.start, stream.view(), *stored.inner, {});
      payload = encoded;
    } else {
      stored.live = context.cache.page(draft.address(stream.origin)).side;
      live = context.cache.side(stored.live);
      if (live.base != kNoSide) return {};
      stored.inner = live.codec;
      payload = live.payload;
    }
    stored.packed = codecs_.pack(payload);
    return stored;
  }

  int64_t window_;
  ZstdCodecs codecs_;
  // Pages that share a side before they are packed share one afterwards: where a side's first page went. The
  // side may be gone and its id used again; what is shared is compared first.
  std::map<SideId, PageAddress> of_live_;
  std::vector<std::pair<SideId, Cell>> lives_;  // of the draft under way
  int64_t sides_ = 0;
  int64_t packed_ = 0;
};

}  // namespace

MethodInfo zstd_method() {
  using enum ParameterKind;
  return {
      .name = "zstd",
      .meaning = "Pages as the steps before store them, packed losslessly by zstd where that is smaller",
      .kind = MethodKind::kFormat,
      .parameters = {{.name = "level",
                      .kind = kInteger,
                      .fallback = "3",
                      .lower = 1,
                      .upper = 19,
                      .help = "zstd's compression level"},
                     {.name = "window",
                      .kind = kInteger,
                      .fallback = "0",
                      .lower = 0,
                      .upper = 1048576,
                      .unit = "tokens",
                      .help = "latest tokens of a sequence left unpacked"}},
      .make = [](const Arguments& arguments) -> std::unique_ptr<Step> {
        return std::make_unique<ZstdStep>(arguments);
      },
  };
}

}  // namespace kva
