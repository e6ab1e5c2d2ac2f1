// merge: tokens of a page that are to go are folded into others of the page instead of dropped. The rules are
// described in compressors/token_merge.h; evict is the base underneath.

#include <map>
#include <tuple>

#include "compressors/method.h"
#include "compressors/token_merge.h"

namespace kva {
namespace {

MergeRule rule_of(std::string_view word) {
  if (word == "kvmerger") return MergeRule::kKvMerger;
  if (word == "d2o") return MergeRule::kD2o;
  return word == "cam" ? MergeRule::kCam : MergeRule::kValue;
}

class MergeStep : public Step {
 public:
  explicit MergeStep(const Arguments& arguments)
      : options_{.rule = rule_of(arguments.word("by")),
                 .keep = arguments.number("keep"),
                 .sinks = arguments.integer("sinks"),
                 .bias = arguments.flag("bias"),
                 .keys = arguments.flag("keys"),
                 .threshold = arguments.number("threshold"),
                 .beta = arguments.number("beta"),
                 .next = arguments.integer("next")},
        window_(arguments.integer("window")) {}

  void begin(const StepContext& context) override { expect_both_sides(context, "merge"); }
  Observations observes() const override { return {.attention_mass = true}; }
  int64_t window_tokens() const override { return window_; }

  void run(const StepContext& context, Draft& draft) override {
    const std::vector<TokenPage> pages = token_pages(context, draft);
    for (const TokenPage& page : pages) thresholds_[table_of(draft.sequence, page)];
    std::vector<MergedPage> made(pages.size());
    context.pool.parallel_for(static_cast<int64_t>(pages.size()), [&](int64_t index, int) {
      const auto i = static_cast<std::size_t>(index);
      made[i] = merge_tokens(pages[i], options_, thresholds_.at(table_of(draft.sequence, pages[i])));
    });
    for (std::size_t i = 0; i < pages.size(); ++i) {
      MergedPage& page = made[i];
      if (static_cast<int64_t>(page.kept.size()) == pages[i].tokens()) continue;
      merged_ += page.merged * static_cast<int64_t>(pages[i].tables.size());
      dropped_ += page.dropped * static_cast<int64_t>(pages[i].tables.size());
      shrink(draft, pages[i], page.kept, page.counts, std::move(page.k), std::move(page.v));
    }
  }

  void forked(const StepContext&, SequenceId sequence, SequenceId copy, int64_t) override {
    for (const auto& [table, threshold] : std::map(thresholds_))
      if (std::get<0>(table) == sequence)
        thresholds_[{copy, std::get<1>(table), std::get<2>(table)}] = threshold;
  }
  void forget(const StepContext&, SequenceId sequence) override {
    std::erase_if(thresholds_, [&](const auto& entry) { return std::get<0>(entry.first) == sequence; });
  }

  std::vector<std::pair<std::string, double>> counters() const override {
    return {{"merge.merged_tokens", static_cast<double>(merged_)},
            {"merge.dropped_tokens", static_cast<double>(dropped_)}};
  }

 private:
  using Table = std::tuple<SequenceId, int, int>;  // sequence, layer, KV head
  static Table table_of(SequenceId sequence, const TokenPage& page) {
    return {sequence, page.tables.front().layer, page.tables.front().kv_head};
  }

  MergeOptions options_;
  int64_t window_;
  std::map<Table, std::optional<double>> thresholds_;  // d2o's
  int64_t merged_ = 0;                                 // of all layers and KV heads
  int64_t dropped_ = 0;
};

std::string check_merge(const Arguments& arguments, const StepPlace& place) {
  if (std::string refused = refuse_dropping(place); !refused.empty()) return refused;
  const MergeRule rule = rule_of(arguments.word("by"));
  if (arguments.given("threshold") && rule != MergeRule::kKvMerger)
    return "threshold= belongs to by=kvmerger; leave it out, or write by=kvmerger";
  if (arguments.given("beta") && rule != MergeRule::kD2o)
    return "beta= belongs to by=d2o; leave it out, or write by=d2o";
  if (arguments.given("next") && rule != MergeRule::kCam)
    return "next= belongs to by=cam; leave it out, or write by=cam";
  if (rule == MergeRule::kCam && arguments.given("bias") && arguments.flag("bias"))
    return "by=cam adds to values, so that nobody stands for more tokens, found bias=true; leave it out";
  if (!arguments.flag("keys")) return "";
  if (rule == MergeRule::kCam) return "by=cam folds values only, found keys=true; leave it out";
  if (place.key_basis != KeyBasis::kPlain)
    return "keys=true would average keys that carry their positions; write keys(plain) before it, or leave "
           "it "
           "out";
  return "";
}

std::vector<ParameterInfo> merge_parameters() {
  using enum ParameterKind;
  std::vector<ParameterInfo> parameters{
      keep_parameter(),
      {.name = "by",
       .kind = kWord,
       .fallback = "value",
       .words = {{"value", {}, "values averaged into the nearest surviving key, weighted by attention"},
                 {"kvmerger", {}, "similar neighbours grouped around the one with most attention"},
                 {"d2o", {}, "into the most similar survivor if over a running threshold, else dropped"},
                 {"cam", {}, "shares of the value added to the next survivors"}},
       .help = "what becomes of the tokens that go"}};
  for (ParameterInfo& parameter : untouched_parameters()) parameters.push_back(std::move(parameter));
  parameters.insert(
      parameters.end(),
      {{.name = "bias",
        .kind = kFlag,
        .fallback = "true",
        .help = "log n is added to the scores of a survivor that stands for n tokens; never by cam"},
       {.name = "keys",
        .kind = kFlag,
        .fallback = "false",
        .help = "fold keys as values are; needs keys(plain)"},
       {.name = "threshold",
        .kind = kNumber,
        .fallback = "0.75",
        .lower = -1,
        .upper = 1,
        .help = "kvmerger: neighbours whose keys have a cosine over this may be grouped"},
       {.name = "beta",
        .kind = kNumber,
        .fallback = "0.7",
        .lower = 0,
        .upper = 1,
        .help = "d2o: weight of the latest token in the running threshold"},
       {.name = "next",
        .kind = kInteger,
        .fallback = "16",
        .lower = 1,
        .upper = 1024,
        .unit = "tokens",
        .help = "cam: so many survivors share the value of a token that goes"}});
  return parameters;
}

}  // namespace

MethodInfo merge_method() {
  return {
      .name = "merge",
      .meaning = "Folds the tokens of each page that got least attention into others",
      .kind = MethodKind::kStructure,
      .papers = {{"Model Tells You Where to Merge: Adaptive KV Cache Merging for LLMs on Long-Context Tasks",
                  "2407.08454"},
                 {"D2O: Dynamic Discriminative Operations for Efficient Long-Context Inference of Large "
                  "Language Models",
                  "2406.13035"}},
      .parameters = merge_parameters(),
      .check = check_merge,
      .make = [](const Arguments& arguments) -> std::unique_ptr<Step> {
        return std::make_unique<MergeStep>(arguments);
      },
  };
}

}  // namespace kva
