#include "runtime/model/tokenizer/pre_tokenizer.h"

#include <fmt/format.h>

#include <algorithm>

#include "runtime/model/tokenizer/read_pattern.h"

namespace kva::tok {
namespace {

constexpr std::size_t kMaxStages = 32;
// Radford et al. 2019; the contractions are case-sensitive.
constexpr std::string_view kGpt2Pattern =
    R"('s|'t|'re|'ve|'m|'ll|'d| ?\p{L}+| ?\p{N}+| ?[^\s\p{L}\p{N}]+|\s+(?!\S)|\s+)";

std::string with_spaces_replaced(std::string_view text, std::string_view replacement) {
  std::string out;
  out.reserve(text.size() + text.size() / 2);
  for (const char c : text) {
    if (c == ' ') {
      out += replacement;
    } else {
      out += c;
    }
  }
  return out;
}

}  // namespace

PreTokenizer PreTokenizer::read(const JsonNode& node) {
  PreTokenizer result;
  result.add(node);
  return result;
}

PreTokenizer PreTokenizer::gpt2(bool add_prefix_space) {
  PreTokenizer result;
  result.add_byte_level(add_prefix_space, true);
  return result;
}

void PreTokenizer::add(const JsonNode& node) {
  const JsonNode type_node = node.at("type");
  const std::string type = type_node.as_string();
  if (byte_level_) type_node.fail("ByteLevel to be the last pre-tokenizer");
  if (type == "Sequence") {
    const JsonNode list = node.at("pretokenizers");
    for (int64_t i = 0; i < list.size(); ++i) add(list.at(i));
  } else if (type == "ByteLevel") {
    add_byte_level(node.get_bool("add_prefix_space", true), node.get_bool("use_regex", true));
  } else if (type == "Split") {
    add_split(node);
  } else if (type == "Digits") {
    add_digits(node.get_bool("individual_digits", false));
  } else if (type == "Metaspace") {
    add_metaspace(node);
  } else {
    type_node.fail("ByteLevel, Split, Digits, Metaspace or Sequence");
  }
  if (stages_.size() > kMaxStages) node.fail(fmt::format("at most {} pre-tokenizers in all", kMaxStages));
}

void PreTokenizer::add_byte_level(bool add_prefix_space, bool use_regex) {
  byte_level_ = true;
  Stage stage;
  if (add_prefix_space) {
    stage.prepend = Prepend::kAlways;
    stage.prefix = " ";
  }
  if (use_regex) {
    static const Pattern pattern = Pattern::regex(kGpt2Pattern, "GPT-2's pattern");
    stage.pattern = pattern;
  }
  stages_.push_back(std::move(stage));
}

void PreTokenizer::add_split(const JsonNode& node) {
  Stage stage;
  stage.pattern = read_pattern(node.at("pattern"));
  stage.invert = node.get_bool("invert", false);
  const JsonNode behavior = node.at("behavior");
  const std::string name = behavior.as_string();
  if (name == "Removed") {
    stage.behavior = Behavior::kRemoved;
  } else if (name == "Isolated") {
    stage.behavior = Behavior::kIsolated;
  } else if (name == "MergedWithPrevious") {
    stage.behavior = Behavior::kMergedWithPrevious;
  } else if (name == "MergedWithNext") {
    stage.behavior = Behavior::kMergedWithNext;
  } else if (name == "Contiguous") {
    stage.behavior = Behavior::kContiguous;
  } else {
    behavior.fail("Removed, Isolated, MergedWithPrevious, MergedWithNext or Contiguous");
  }
  stages_.push_back(std::move(stage));
}

void PreTokenizer::add_digits(bool individual) {
  Stage stage;
  stage.pattern = Pattern::regex(individual ? "\\p{N}" : "\\p{N}+", "the pattern of Digits");
  stages_.push_back(std::move(stage));
}

void PreTokenizer::add_metaspace(const JsonNode& node) {
  Stage stage;
  stage.space = node.at("replacement").as_string();
  if (stage.space.empty()) node.at("replacement").fail("a character");
  stage.prefix = stage.space;
  // add_prefix_space is how files said it before prepend_scheme.
  const std::string fallback = node.get_bool("add_prefix_space", true) ? "always" : "never";
  const std::string scheme = node.get_string("prepend_scheme", fallback);
  if (scheme == "always") {
    stage.prepend = Prepend::kAlways;
  } else if (scheme == "first") {
    stage.prepend = Prepend::kFirst;
  } else if (scheme != "never") {
    node.at("prepend_scheme").fail("always, first or never");
  }
  if (node.get_bool("split", true)) {
    stage.pattern = Pattern::literal(stage.space, where_of(node));
    stage.behavior = Behavior::kMergedWithNext;
  }
  stages_.push_back(std::move(stage));
}

bool PreTokenizer::adds_prefix() const {
  return std::any_of(stages_.begin(), stages_.end(),
                     [](const Stage& stage) { return stage.prepend != Prepend::kNever; });
}

// Groups matches and the stretches between them into pieces, as a Split's behavior says.
class PreTokenizer::Grouper {
 public:
  Grouper(Behavior behavior, std::function<void(std::size_t, std::size_t)> emit)
      : behavior_(behavior), emit_(std::move(emit)) {}

  void add(std::size_t begin, std::size_t end, bool is_match) {
    if (pending_ && joins(is_match)) {
      end_ = end;
    } else {
      finish();
      begin_ = begin;
      end_ = end;
      pending_ = !(is_match && behavior_ == Behavior::kRemoved);
    }
    last_is_match_ = is_match;
  }

  void finish() {
    if (pending_ && end_ > begin_) emit_(begin_, end_);
    pending_ = false;
  }

 private:
  bool joins(bool is_match) const {
    switch (behavior_) {
      case Behavior::kContiguous: return is_match == last_is_match_;
      case Behavior::kMergedWithPrevious: return is_match && !last_is_match_;
      case Behavior::kMergedWithNext: return !is_match && last_is_match_;
      case Behavior::kIsolated:
      case Behavior::kRemoved: break;
    }
    return false;
  }

  Behavior behavior_;
  std::function<void(std::size_t, std::size_t)> emit_;
  std::size_t begin_ = 0;
  std::size_t end_ = 0;
  bool pending_ = false;
  bool last_is_match_ = false;
};

void PreTokenizer::split(std::string_view text, bool at_text_start, const WordSink& sink) const {
  run(0, text, at_text_start, sink);
}

void PreTokenizer::run(std::size_t stage_index, std::string_view text, bool at_text_start,
                       const WordSink& sink) const {
  if (text.empty()) return;
  if (stage_index == stages_.size()) {
    sink(text);
    return;
  }
  const Stage& stage = stages_[stage_index];
  std::string changed;
  if (!stage.space.empty()) {
    changed = with_spaces_replaced(text, stage.space);
    text = changed;
  }
  const bool wanted =
      stage.prepend == Prepend::kAlways || (stage.prepend == Prepend::kFirst && at_text_start);
  if (wanted && !text.starts_with(stage.prefix)) {
    changed = stage.prefix + std::string(text);
    text = changed;
  }
  if (stage.pattern) {
    run_pattern(stage_index, text, at_text_start, sink);
  } else {
    run(stage_index + 1, text, at_text_start, sink);
  }
}

void PreTokenizer::run_pattern(std::size_t stage_index, std::string_view text, bool at_text_start,
                               const WordSink& sink) const {
  const Stage& stage = stages_[stage_index];
  Grouper grouper(stage.behavior, [&](std::size_t begin, std::size_t end) {
    run(stage_index + 1, text.substr(begin, end - begin), at_text_start && begin == 0, sink);
  });
  for_each_span(*stage.pattern, text, [&](std::size_t begin, std::size_t end, bool is_match) {
    grouper.add(begin, end, is_match != stage.invert);
  });
  grouper.finish();
}

}  // namespace kva::tok
