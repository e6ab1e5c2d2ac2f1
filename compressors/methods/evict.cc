// evict: the tokens of a page that got least attention so far are dropped. H2O (arXiv 2306.14048) ranks by
// the same sums, over the whole sequence and at every step; here each page keeps a share of its own tokens,
// once.

#include "compressors/method.h"
#include "compressors/token_page.h"

namespace kva {
namespace {

class EvictStep : public Step {
 public:
  explicit EvictStep(const Arguments& arguments)
      : keep_(arguments.number("keep")),
        sinks_(arguments.integer("sinks")),
        window_(arguments.integer("window")) {}

  void begin(const StepContext& context) override { expect_both_sides(context, "evict"); }
  Observations observes() const override { return {.attention_mass = true}; }
  int64_t window_tokens() const override { return window_; }

  void run(const StepContext& context, Draft& draft) override {
    for (const TokenPage& page : token_pages(context, draft)) {
      const std::vector<int64_t> kept = survivors(page, keep_, sinks_);
      const int64_t dropped = page.tokens() - static_cast<int64_t>(kept.size());
      if (dropped == 0) continue;
      std::vector<double> counts;
      counts.reserve(kept.size());
      for (const int64_t t : kept) counts.push_back(page.counts[static_cast<std::size_t>(t)]);
      shrink(draft, page, kept, counts, rows_of(*page.k, kept), rows_of(*page.v, kept));
      dropped_ += dropped * static_cast<int64_t>(page.tables.size());
    }
  }

  std::vector<std::pair<std::string, double>> counters() const override {
    return {{"evict.dropped_tokens", static_cast<double>(dropped_)}};
  }

 private:
  double keep_;
  int64_t sinks_;
  int64_t window_;
  int64_t dropped_ = 0;  // of all layers and KV heads
};

std::vector<ParameterInfo> evict_parameters() {
  std::vector<ParameterInfo> parameters{
      keep_parameter(),
      {.name = "by",
       .kind = ParameterKind::kWord,
       .fallback = "mass",
       .words = {{"mass", {}, "attention received so far, summed over queries"}},
       .help = "what tokens are ranked by"}};
  for (ParameterInfo& parameter : untouched_parameters()) parameters.push_back(std::move(parameter));
  return parameters;
}

}  // namespace

MethodInfo evict_method() {
  return {
      .name = "evict",
      .meaning = "Drops the tokens of each page that got least attention",
      .kind = MethodKind::kStructure,
      .papers = {{"H2O: Heavy-Hitter Oracle for Efficient Generative Inference of Large Language Models",
                  "2306.14048"}},
      .parameters = evict_parameters(),
      .check = [](const Arguments&, const StepPlace& place) { return refuse_dropping(place); },
      .make = [](const Arguments& arguments) -> std::unique_ptr<Step> {
        return std::make_unique<EvictStep>(arguments);
      },
  };
}

}  // namespace kva
