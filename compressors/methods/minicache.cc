// minicache (arXiv 2405.14366): neighbouring layers share the directions of their tokens and keep their own
// lengths. Equation 3, spherical interpolation of the unit vectors a, b at the angle Ω:
//   e = sin((1-t)Ω)/sin Ω · a + sin(tΩ)/sin Ω · b,  a of the lower layer.

#include <cmath>
#include <numbers>

#include "compressors/codecs/minicache_codec.h"
#include "compressors/layer_range.h"
#include "compressors/method.h"
#include "compressors/step.h"

namespace kva {
namespace {

// Below this sine the interpolation divides by next to nothing; the straight line is the same there.
constexpr double kSmallSine = 1e-6;

double length_of(const float* row, int64_t width) {
  double sum = 0.0;
  for (int64_t i = 0; i < width; ++i) sum += static_cast<double>(row[i]) * row[i];
  return std::sqrt(sum);
}

// The direction between rows a and b at t, of length 1. A zero row leaves the other's direction.
void interpolate(const float* a, const float* b, int64_t width, double t, float* out) {
  const double length_a = length_of(a, width);
  const double length_b = length_of(b, width);
  double cosine = 0.0;
  for (int64_t i = 0; i < width; ++i) cosine += static_cast<double>(a[i]) * b[i];
  cosine = length_a > 0.0 && length_b > 0.0 ? std::clamp(cosine / (length_a * length_b), -1.0, 1.0) : 1.0;
  const double angle = std::acos(cosine);
  const double sine = std::sin(angle);
  double of_a = sine > kSmallSine ? std::sin((1.0 - t) * angle) / sine : 1.0 - t;
  double of_b = sine > kSmallSine ? std::sin(t * angle) / sine : t;
  of_a = length_a > 0.0 ? of_a / length_a : 0.0;
  of_b = length_b > 0.0 ? of_b / length_b : 0.0;
  double sum = 0.0;
  for (int64_t i = 0; i < width; ++i) {
    const double value = of_a * a[i] + of_b * b[i];
    out[i] = static_cast<float>(value);
    sum += value * value;
  }
  if (sum <= 0.0) return;
  for (int64_t i = 0; i < width; ++i) out[i] = static_cast<float>(out[i] / std::sqrt(sum));
}

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
    shared.rows.resize(lower.rows.size());
    shared.tokens = lower.tokens;
    shared.width = lower.width;
    shared.origin = lower.origin;
    shared.shared = true;
    for (int64_t token = 0; token < lower.tokens; ++token) {
      const int64_t at = token * lower.width;
      interpolate(lower.rows.data() + at, upper.rows.data() + at, lower.width, t_, shared.rows.data() + at);
    }
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
