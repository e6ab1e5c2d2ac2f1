#include "compressors/learned_format.h"

#include <fmt/format.h>

#include <algorithm>
#include <cmath>

#include "runtime/error.h"
#include "runtime/interrupt.h"

namespace kva {

void LearnedFormat::fit(const StepContext& context, const PageSet& sample) {
  if (sample.page_count() == 0)
    throw InputError(
        fmt::format("{}: expected a calibration text of at least one page of {} tokens, found none; give a "
                    "longer text",
                    name_, sample.page_tokens));
  const std::vector<LayerSide> list = layer_sides(context.cells);
  std::vector<std::vector<float>> codebooks(list.size());
  context.pool.parallel_for(static_cast<int64_t>(list.size()), [&](int64_t index, int) {
    throw_if_interrupted();
    const auto i = static_cast<std::size_t>(index);
    codebooks[i] = learn(context, sample, list[i]);
  });
  codecs_.assign(static_cast<std::size_t>(context.layers()) * 2, nullptr);
  for (std::size_t i = 0; i < list.size(); ++i)
    codecs_[side_index(list[i].layer, list[i].side)] = make(context, list[i], codebooks[i]);
}

void LearnedFormat::run(const StepContext& context, Draft& draft) {
  if (codecs_.empty())
    throw InputError(fmt::format(
        "{}: expected codebooks learnt from a calibration text, found none; give one (--calibration FILE)",
        name_));
  for (DraftStream& stream : draft.streams) {
    if (!stream.unformatted()) continue;
    if (const std::string why = refusal(context, stream); !why.empty())
      throw InputError(fmt::format("{}: {}: {}", cell_name(stream.origin), name_, why));
    stream.format = codecs_[side_index(stream.origin.layer, stream.origin.side)];
  }
}

void LearnedFormat::outline(const StepContext& context, Draft& draft) {
  const std::vector<float> zeros(static_cast<std::size_t>(codebook_numbers(context)));
  codecs_.assign(static_cast<std::size_t>(context.layers()) * 2, nullptr);
  for (const LayerSide& of : layer_sides(context.cells))
    codecs_[side_index(of.layer, of.side)] = make(context, of, zeros);
  run(context, draft);
}

void read_finite_sample(const std::string& method, const PageSet& sample, const Cell& cell, int64_t page,
                        MatView<float> rows) {
  read_sample(sample, cell, page, rows);
  const auto is_finite = [](float value) { return std::isfinite(value); };
  if (!std::all_of(rows.data, rows.data + rows.rows * rows.cols, is_finite))
    throw InputError(fmt::format(
        "{}: {}: expected finite numbers in the calibration text, found others on its page {}; check the "
        "model's weights",
        cell_name(cell), method, page));
}

}  // namespace kva
