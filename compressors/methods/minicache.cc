// minicache (arXiv 2405.14366): neighbouring layers share the directions of their tokens and keep their own
// lengths. Equation 3, spherical interpolation from the lower layer's directions, is
// kernels/direction_math.h.

#include "compressors/codecs/minicache_codec.h"
#include "compressors/layer_range.h"
#include "compressors/method.h"
#include "compressors/step.h"
#include "kernels/directions.h"

namespace kva {
namespace {

// Whether the stream is one cell's, still to be stored and as it was read.
bool can_merge(const DraftStream& stream) {
  return stream.unformatted() && stream.wraps.empty() && stream.cells.size() == 1;
}

class MiniCacheStep : public Step {
 public:
  explicit MiniCacheStep(const Arguments& arguments)
      : arguments_(arguments),
        t_(arguments.number("t")),
        codec_(make_minicache_codec(arguments.number("retain"))) {}

  bool reads_numbers() const override { return false; }
  void begin(const StepContext& context) override {
    start_ = first_layer(arguments_, "start", context.layers());
  }

  void run(const StepContext& context, Draft& draft) override {
    std::vector<std::pair<std::size_t, std::size_t>> pairs;
    for (std::size_t i = 0; i < draft.streams.size(); ++i) {
      const DraftStream& lower = draft.streams[i];
      if (!can_merge(lower)) continue;
      const Cell cell = lower.cells.front();
      if (cell.layer < start_ || (cell.layer - start_) % 2 != 0) continue;
      const DraftStream* upper = draft.stream_of({cell.layer + 1, cell.kv_head, cell.side});
      if (!upper || !can_merge(*upper) || !draft.same_places(cell, upper->cells.front())) continue;
      pairs.emplace_back(i, static_cast<std::size_t>(upper - draft.streams.data()));
    }
    const std::size_t first = draft.streams.size();
    draft.streams.resize(first + pairs.size());
    context.pool.parallel_for(static_cast<int64_t>(pairs.size()), [&](int64_t index, int) {
      const auto [low, high] = pairs[static_cast<std::size_t>(index)];
      const std::size_t base = first + static_cast<std::size_t>(index);
      merge(draft.streams[low], draft.streams[high], draft.streams[base]);
      for (const std::size_t i : {low, high}) {
        draft.streams[i].codec = codec_;
        draft.streams[i].base = static_cast<int>(base);
      }
    });
  }

 private:
  void merge(const DraftStream& lower, const DraftStream& upper, DraftStream& shared) const {
    shared.tokens = lower.tokens;
    shared.width = lower.width;
    shared.origin = lower.origin;
    shared.shared = true;
    if (lower.unread) {
      shared.unread = true;
      shared.towards = upper.origin;
      shared.share = t_;
      return;
    }
    shared.rows.resize(lower.rows.size());
    directions_between(lower.view(), upper.view(), t_,
                       MatView<float>(shared.rows.data(), shared.tokens, shared.width));
  }

  Arguments arguments_;
  double t_;
  std::shared_ptr<const SideCodec> codec_;
  int start_ = 0;
};

}  // namespace

MethodInfo minicache_method() {
  using enum ParameterKind;
  return {
      .name = "minicache",
      .meaning = "Pairs of layers share their tokens' directions and keep their own lengths",
      .kind = MethodKind::kTransform,
      .papers = {{"MiniCache: KV Cache Compression in Depth Dimension for Large Language Models",
                  "2405.14366"}},
      .parameters = {{.name = "start",
                      .aliases = {"merge_start_layer"},
                      .kind = kCountOrShare,
                      .fallback = "0.5",
                      .lower = 0,
                      .upper = 1 << 20,
                      .unit = "layer",
                      .help = "first layer that is merged: an index or a share of the depth"},
                     {.name = "t",
                      .kind = kNumber,
                      .fallback = "0.6",
                      .lower = 0,
                      .upper = 1,
                      .help = "where between the two layers the direction lies; 1 is the upper one's"},
                     {.name = "retain",
                      .kind = kNumber,
                      .fallback = "0.05",
                      .lower = 0,
                      .upper = 1,
                      .unit = "share",
                      .help = "share of a page's tokens kept whole: those farthest from their direction"}},
      .make = [](const Arguments& arguments) -> std::unique_ptr<Step> {
        return std::make_unique<MiniCacheStep>(arguments);
      },
  };
}

}  // namespace kva
