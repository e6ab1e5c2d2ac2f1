// budget: codes of as many bits as a given size allows, more of them where a calibration text loses most.
// Each layer's keys and values are a part; a part's loss is the squared error of its tokens, weighted by the
// attention that they received, times what the model was measured to lose by such an error there. KVTuner
// (arXiv 2502.04420) measures layers' sensitivities too, and searches; this walks down convex hulls.

#include <fmt/format.h>

#include <array>
#include <cmath>

#include "compressors/bit_allocation.h"
#include "compressors/codecs/quant_codec.h"
#include "compressors/learned_format.h"
#include "compressors/method.h"
#include "compressors/part_probe.h"
#include "compressors/scale_parameters.h"
#include "compressors/step.h"
#include "runtime/error.h"
#include "runtime/interrupt.h"

namespace kva {
namespace {

constexpr std::array<int, 5> kBits = {2, 3, 4, 8, 16};  // 16: dense f16
constexpr double kDenseBits = 16.0;

// Squared errors of a part's tokens in each width and in the probe's codes, and squares about the means.
struct Losses {
  std::array<double, kBits.size()> error{};
  double probe = 0.0;
  double variance = 0.0;

  // What a squared error of 1 costs: nats a token, or shares of the variance where the text came without
  // losses.
  double weight(const std::vector<double>& part_losses, const LayerSide& of) const {
    if (part_losses.empty()) return variance > 0.0 ? 1.0 / variance : 1.0;
    return probe > 0.0 ? part_losses[side_index(of.layer, of.side)] / probe : 0.0;
  }
};

class BudgetStep : public Step {
 public:
  explicit BudgetStep(const Arguments& arguments);

  bool needs_sample() const override { return true; }
  bool wants_part_losses() const override { return true; }
  void fit(const StepContext& context, const PageSet& sample) override;
  void run(const StepContext& context, Draft& draft) override;
  // All parts in the fewest bits.
  void outline(const StepContext& context, Draft& draft) override {
    chosen_.assign(static_cast<std::size_t>(context.layers()) * 2, nullptr);
    for (const LayerSide& of : layer_sides(context.cells))
      chosen_[side_index(of.layer, of.side)] = codecs(of.side).front();
    run(context, draft);
  }
  std::vector<std::pair<std::string, double>> counters() const override {
    return {{"budget.bits_planned", planned_bits_}, {"budget.loss_planned", planned_loss_}};
  }
  std::vector<std::string> remarks() const override { return remarks_; }

 private:
  using Codecs = std::array<std::shared_ptr<const SideCodec>, kBits.size()>;

  const Codecs& codecs(Side side) const { return codecs_[side == Side::kKey ? 0 : 1]; }
  const SideCodec& probe(Side side) const { return *probes_[side == Side::kKey ? 0 : 1]; }
  double bits_asked(const StepContext& context) const;
  Losses losses(const PageSet& sample, const LayerSide& of) const;
  void add_losses(const PageSet& sample, const Cell& cell, const std::vector<double>& means,
                  Losses& losses) const;
  void remark(const std::vector<LayerSide>& parts, const std::vector<std::size_t>& chosen, double asked);

  Arguments arguments_;
  Codecs codecs_[2];
  std::shared_ptr<const SideCodec> probes_[2] = {part_probe_codec(Side::kKey),
                                                 part_probe_codec(Side::kValue)};
  std::vector<std::shared_ptr<const SideCodec>> chosen_;  // by side_index()
  double planned_bits_ = 0.0;
  double planned_loss_ = 0.0;  // summed over parts: nats a token, or shares of the variance
  std::vector<std::string> remarks_;
};

BudgetStep::BudgetStep(const Arguments& arguments) : arguments_(arguments) {
  for (const Side side : {Side::kKey, Side::kValue})
    for (std::size_t i = 0; i < kBits.size(); ++i)
      codecs_[side == Side::kKey ? 0 : 1][i] =
          kBits[i] == 16 ? make_dense_codec(DType::kF16)
                         : make_quant_codec({.bits = kBits[i],
                                             .axis = scale_axis(arguments, side),
                                             .outliers = arguments.number("outliers"),
                                             .for_keys = side == Side::kKey});
}

double BudgetStep::bits_asked(const StepContext& context) const {
  if (arguments_.has("ratio")) return kDenseBits / arguments_.number("ratio");
  if (!arguments_.has("bytes")) return arguments_.number("bits");
  const double numbers = static_cast<double>(context.cells.size()) * context.cache.options().head_dim *
                         arguments_.number("tokens");
  return 8.0 * arguments_.number("bytes") / numbers;
}

void BudgetStep::add_losses(const PageSet& sample, const Cell& cell, const std::vector<double>& means,
                            Losses& losses) const {
  const int64_t tokens = sample.page_tokens, width = sample.head_dim;
  std::vector<float> numbers(static_cast<std::size_t>(tokens * width)), read = numbers, scratch;
  std::vector<std::byte> payload;
  const MatView<float> rows(numbers.data(), tokens, width), back(read.data(), tokens, width);
  for (int64_t page = 0; page < sample.page_count(); ++page) {
    throw_if_interrupted();
    read_finite_sample("budget", sample, cell, page, rows);
    const float* mass = sample_mass(sample, cell, page);
    for (int64_t t = 0; t < tokens; ++t)
      for (int64_t c = 0; c < width; ++c)
        losses.variance +=
            (mass ? mass[t] : 1.0) * std::pow(rows.at(t, c) - means[static_cast<std::size_t>(c)], 2);
    const auto error = [&](const SideCodec& codec) {
      payload.resize(static_cast<std::size_t>(codec.bytes(tokens, width)));
      scratch.resize(static_cast<std::size_t>(codec.decode_scratch(tokens, width)));
      codec.encode(rows, {}, payload.data());
      codec.decode({.payload = payload.data()}, scratch.data(), back);
      double sum = 0.0;
      for (int64_t t = 0; t < tokens; ++t)
        for (int64_t c = 0; c < width; ++c)
          sum += (mass ? mass[t] : 1.0) * std::pow(double{rows.at(t, c)} - back.at(t, c), 2);
      return sum;
    };
    for (std::size_t i = 0; i < kBits.size(); ++i) losses.error[i] += error(*codecs(cell.side)[i]);
    losses.probe += error(probe(cell.side));
  }
}

Losses BudgetStep::losses(const PageSet& sample, const LayerSide& of) const {
  Losses result;
  const int64_t tokens = sample.page_tokens, width = sample.head_dim;
  std::vector<float> numbers(static_cast<std::size_t>(tokens * width));
  const MatView<float> rows(numbers.data(), tokens, width);
  for (const int head : of.kv_heads) {
    const Cell cell{of.layer, head, of.side};
    std::vector<double> means(static_cast<std::size_t>(width), 0.0);
    for (int64_t page = 0; page < sample.page_count(); ++page) {
      read_finite_sample("budget", sample, cell, page, rows);
      for (int64_t t = 0; t < tokens; ++t)
        for (int64_t c = 0; c < width; ++c) means[static_cast<std::size_t>(c)] += rows.at(t, c);
    }
    for (double& mean : means) mean /= static_cast<double>(sample.page_count() * tokens);
    add_losses(sample, cell, means, result);
  }
  return result;
}

void BudgetStep::fit(const StepContext& context, const PageSet& sample) {
  if (sample.page_count() == 0)
    throw InputError(fmt::format(
        "budget: expected a calibration text of at least one page of {} tokens, found none; give a "
        "longer text",
        sample.page_tokens));
  const std::vector<LayerSide> parts = layer_sides(context.cells);
  std::vector<Losses> measured(parts.size());
  context.pool.parallel_for(static_cast<int64_t>(parts.size()), [&](int64_t i, int) {
    measured[static_cast<std::size_t>(i)] = losses(sample, parts[static_cast<std::size_t>(i)]);
  });

  const int64_t tokens = sample.page_tokens, width = sample.head_dim;
  std::vector<std::vector<StorageChoice>> choices(parts.size());
  int64_t least = 0;
  for (std::size_t p = 0; p < parts.size(); ++p) {
    const auto heads = static_cast<int64_t>(parts[p].kv_heads.size());
    const double weight = measured[p].weight(sample.part_losses, parts[p]);
    for (std::size_t i = 0; i < kBits.size(); ++i)
      choices[p].push_back(
          {.bytes = heads * KvCache::side_footprint_bytes(codecs(parts[p].side)[i]->bytes(tokens, width)),
           .loss = measured[p].error[i] * weight});
    least += choices[p].front().bytes;
  }
  const double asked = bits_asked(context);
  const double numbers = static_cast<double>(context.cells.size()) * static_cast<double>(tokens * width);
  const double most = asked / 8.0 * numbers;
  const auto chosen = allocate_bytes(choices, most < 0x1p62 ? static_cast<int64_t>(most) : int64_t{1} << 62);
  if (!chosen)
    throw InputError(fmt::format(
        "budget{}: expected at least {:.3f} bits a number, what 2-bit codes take with their scales, outliers "
        "and "
        "page entries at {} tokens a page, found {:.3f}; ask for more, or use fewer outliers or larger pages",
        arguments_.text(), 8.0 * static_cast<double>(least) / numbers, tokens, asked));
  chosen_.assign(static_cast<std::size_t>(context.layers()) * 2, nullptr);
  int64_t planned = 0;
  for (std::size_t p = 0; p < parts.size(); ++p) {
    chosen_[side_index(parts[p].layer, parts[p].side)] = codecs(parts[p].side)[(*chosen)[p]];
    planned += choices[p][(*chosen)[p]].bytes;
    planned_loss_ += choices[p][(*chosen)[p]].loss;
  }
  planned_bits_ = 8.0 * static_cast<double>(planned) / numbers;
  remark(parts, *chosen, asked);
}

void BudgetStep::remark(const std::vector<LayerSide>& parts, const std::vector<std::size_t>& chosen,
                        double asked) {
  std::string text;
  for (const Side side : {Side::kKey, Side::kValue}) {
    std::string of_side;
    for (std::size_t i = kBits.size(); i-- > 0;) {
      std::string layers;
      for (std::size_t p = 0; p < parts.size(); ++p)
        if (parts[p].side == side && chosen[p] == i)
          layers += fmt::format("{}{}", layers.empty() ? "" : ",", parts[p].layer);
      if (!layers.empty())
        of_side += fmt::format("{}{} bits in layers {}", of_side.empty() ? "" : ", ", kBits[i], layers);
    }
    if (!of_side.empty()) text += fmt::format("; {}: {}", side == Side::kKey ? "keys" : "values", of_side);
  }
  remarks_ = {
      fmt::format("budget: {:.3f} of {:.3f} bits a number of full pages{}", planned_bits_, asked, text)};
}

void BudgetStep::run(const StepContext& context, Draft& draft) {
  if (chosen_.empty())
    throw InputError(
        "budget: expected losses measured on a calibration text, found none; give one (--calibration FILE)");
  for (DraftStream& stream : draft.streams) {
    if (!stream.unformatted()) continue;
    if (stream.width != context.cache.options().head_dim || !stream.wraps.empty())
      throw InputError(fmt::format(
          "{}: budget: expected the numbers that the calibration text has, found those of another step's "
          "transform; use quant behind it",
          cell_name(stream.origin)));
    stream.format = chosen_[side_index(stream.origin.layer, stream.origin.side)];
  }
}

std::string check_budget(const Arguments& arguments, const StepPlace&) {
  const int sizes = arguments.given("bits") + arguments.given("ratio") + arguments.given("bytes");
  if (sizes > 1) return fmt::format("expected one of bits, ratio and bytes, found {}", sizes);
  if (arguments.given("tokens") && !arguments.given("bytes"))
    return "tokens says what bytes are for; expected bytes with it, found none";
  return "";
}

}  // namespace

MethodInfo budget_method() {
  using enum ParameterKind;
  return {
      .name = "budget",
      .meaning = "Codes of as many bits as a size allows, more where a calibration text loses most",
      .kind = MethodKind::kFormat,
      .papers = {{"KVTuner: Sensitivity-Aware Layer-Wise Mixed-Precision KV Cache Quantization",
                  "2502.04420"}},
      .parameters =
          {{.name = "bits",
            .kind = kNumber,
            .fallback = "4.5",
            .lower = 0,
            .upper = 16,
            .above_lower = true,
            .unit = "bits",
            .help =
                "of a number of full pages, with scales, outliers and page entries; the open page comes on "
                "top"},
           {.name = "ratio",
            .kind = kNumber,
            .lower = 1,
            .upper = 64,
            .unit = "times",
            .help = "instead of bits: how many times smaller than dense f16"},
           {.name = "bytes",
            .kind = kInteger,
            .lower = 1,
            .upper = 0x1p50,
            .unit = "bytes",
            .help = "instead of bits: of all full pages of a sequence of `tokens` tokens"},
           {.name = "tokens",
            .kind = kInteger,
            .fallback = "2048",
            .lower = 1,
            .upper = 1 << 30,
            .unit = "tokens",
            .help = "length of the sequence that `bytes` are for"},
           outliers_parameter("0.01"),
           axes_parameter("kivi")},
      .check = check_budget,
      .make = [](const Arguments& arguments) -> std::unique_ptr<Step> {
        return std::make_unique<BudgetStep>(arguments);
      },
  };
}

}  // namespace kva
