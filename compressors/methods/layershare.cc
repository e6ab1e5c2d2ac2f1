// layershare: whole layers read the pages of the layer below.

#include <fmt/format.h>

#include "compressors/layer_range.h"
#include "compressors/method.h"
#include "compressors/step.h"

namespace kva {
namespace {

class LayerShareStep : public Step {
 public:
  explicit LayerShareStep(const Arguments& arguments)
      : arguments_(arguments), every_(static_cast<int>(arguments.integer("every"))) {}

  void begin(const StepContext& context) override {
    start_ = first_layer(arguments_, "start", context.layers());
  }

  bool reads_numbers() const override { return false; }
  void run(const StepContext&, Draft& draft) override {
    for (DraftStream& stream : draft.streams) {
      if (!stream.unformatted() || stream.cells.size() != 1) continue;
      const Cell cell = stream.cells.front();
      const int above = (cell.layer - start_) % every_;
      if (cell.layer < start_ || above == 0) continue;
      DraftStream* kept = draft.stream_of({cell.layer - above, cell.kv_head, cell.side});
      if (!kept || !kept->unformatted() || kept == &stream) continue;
      if (!draft.same_places(kept->cells.front(), cell)) continue;
      kept->cells.push_back(cell);
      stream.cells.clear();
    }
  }

 private:
  Arguments arguments_;
  int every_;
  int start_ = 0;
};

}  // namespace

MethodInfo layershare_method() {
  using enum ParameterKind;
  return {
      .name = "layershare",
      .meaning = "Layers read the pages of the layer below instead of their own",
      .kind = MethodKind::kStructure,
      .papers = {{"Reducing Transformer Key-Value Cache Size with Cross-Layer Attention", "2405.12981"}},
      .parameters = {{.name = "start",
                      .kind = kCountOrShare,
                      .fallback = "0.5",
                      .lower = 0,
                      .upper = 1 << 20,
                      .unit = "layer",
                      .help = "first layer whose pages are shared: an index or a share of the depth"},
                     {.name = "every",
                      .kind = kInteger,
                      .fallback = "2",
                      .lower = 2,
                      .upper = 1 << 20,
                      .unit = "layers",
                      .help = "so many neighbouring layers share the lowest one's pages"}},
      .make = [](const Arguments& arguments) -> std::unique_ptr<Step> {
        return std::make_unique<LayerShareStep>(arguments);
      },
  };
}

}  // namespace kva
