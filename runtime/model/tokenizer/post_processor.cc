#include "runtime/model/tokenizer/post_processor.h"

#include <fmt/format.h>

namespace kva::tok {
namespace {

constexpr int64_t kMaxAdded = 64;

// Wraps what is there already: later processors of a Sequence stand further out.
void wrap(PostProcessor& result, const std::vector<int32_t>& before, const std::vector<int32_t>& after) {
  result.before.insert(result.before.begin(), before.begin(), before.end());
  result.after.insert(result.after.end(), after.begin(), after.end());
}

void read_template(const JsonNode& node, PostProcessor& result) {
  const JsonNode items = node.at("single");
  std::vector<int32_t> before;
  std::vector<int32_t> after;
  int texts = 0;
  for (int64_t i = 0; i < items.size(); ++i) {
    const JsonNode item = items.at(i);
    if (item.has("Sequence")) {
      ++texts;
      continue;
    }
    const std::string name = item.at("SpecialToken").at("id").as_string();
    const JsonNode ids = node.at("special_tokens").at(name).at("ids");
    for (int64_t j = 0; j < ids.size(); ++j) {
      auto& side = texts == 0 ? before : after;
      side.push_back(static_cast<int32_t>(ids.at(j).as_int(0, kMaxTokenId)));
      if (static_cast<int64_t>(side.size()) > kMaxAdded)
        items.fail(fmt::format("at most {} tokens", kMaxAdded));
    }
  }
  if (texts != 1) items.fail("a template with the text in it once");
  wrap(result, before, after);
}

int32_t read_pair_id(const JsonNode& node, const std::string& key) {
  return static_cast<int32_t>(node.at(key).at(1).as_int(0, kMaxTokenId));  // ["</s>", 2]
}

void add(const JsonNode& node, PostProcessor& result) {
  const std::string type = node.at("type").as_string();
  if (type == "Sequence") {
    const JsonNode list = node.at("processors");
    if (list.size() > kMaxAdded) list.fail(fmt::format("at most {} processors", kMaxAdded));
    for (int64_t i = 0; i < list.size(); ++i) add(list.at(i), result);
  } else if (type == "TemplateProcessing") {
    read_template(node, result);
  } else if (type == "RobertaProcessing" || type == "BertProcessing") {
    wrap(result, {read_pair_id(node, "cls")}, {read_pair_id(node, "sep")});
  } else if (type != "ByteLevel") {
    node.at("type").fail("TemplateProcessing, RobertaProcessing, BertProcessing, ByteLevel or Sequence");
  }
}

}  // namespace

PostProcessor PostProcessor::read(const JsonNode& node) {
  PostProcessor result;
  add(node, result);
  return result;
}

}  // namespace kva::tok
