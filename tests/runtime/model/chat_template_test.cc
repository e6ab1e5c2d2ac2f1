#include "runtime/model/tokenizer/chat_template.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "runtime/model/tokenizer.h"
#include "tests/runtime/model/tokenizer_fixture.h"

namespace kva {
namespace {

using ::testing::HasSubstr;
using tok::ChatTemplate;

std::vector<ChatMessage> messages_of(const JsonNode& array) {
  std::vector<ChatMessage> messages;
  for (int64_t i = 0; i < array.size(); ++i)
    messages.push_back({array.at(i).at("role").as_string(), array.at(i).at("content").as_string()});
  return messages;
}

TEST(ChatTemplate, WritesWhatJinjaWrites) {
  const JsonNode file = JsonNode::parse_file(kTokenizerFixtures + "/chat.json");
  const JsonNode cases = file.at("cases");
  ASSERT_GT(cases.size(), 40);
  for (int64_t i = 0; i < cases.size(); ++i) {
    const JsonNode one = cases.at(i);
    const std::string name = one.at("template").as_string();
    const auto chat = ChatTemplate::recognise(file.at("templates").at(name).as_string(), "test");
    EXPECT_EQ(name.substr(0, chat.name().size()), chat.name());
    EXPECT_EQ(chat.render(messages_of(one.at("messages")), one.at("add_generation_prompt").as_bool(), "<s>",
                          "</s>"),
              one.at("expected").as_string())
        << name;
  }
}

TEST(ChatTemplate, RefusesWhatItDoesNotKnow) {
  EXPECT_THAT(
      error_of([] { ChatTemplate::recognise("<start_of_turn>{{ x }}", "dir/tokenizer_config.json"); }),
      testing::AllOf(HasSubstr("dir/tokenizer_config.json: chat_template: expected ChatML"),
                     HasSubstr("pass plain prompts")));
}

TEST(ChatTemplate, RefusesRolesOutOfPlace) {
  const auto chatml = ChatTemplate::recognise("<|im_start|>", "test");
  const auto mistral = ChatTemplate::recognise("[INST]", "test");
  const auto render = [](const ChatTemplate& chat, std::vector<ChatMessage> messages) {
    return error_of([&] { (void)chat.render(messages, true, "", ""); });
  };
  EXPECT_THAT(render(chatml, {}), HasSubstr("at least one message"));
  EXPECT_THAT(render(chatml, {{"tool", "x"}}), HasSubstr("found \"tool\""));
  EXPECT_THAT(render(chatml, {{"user", "x"}, {"system", "y"}}), HasSubstr("message 1"));
  EXPECT_THAT(render(mistral, {{"system", "x"}}), HasSubstr("no system role"));
  EXPECT_THAT(render(mistral, {{"user", "x"}, {"user", "y"}}), HasSubstr("in turn"));
}

TEST(ChatTemplate, IsFoundInTheModelsFolder) {
  TempFolder folder;
  folder.link("tokenizer.json", kTokenizerFixtures + "/llama2/tokenizer.json");
  const ChatMessage hi{"user", "hi"};
  EXPECT_FALSE(Tokenizer::load(folder.path()).has_chat_template());
  EXPECT_THAT(error_of([&] {
                Tokenizer::load(folder.path()).apply_chat_template({&hi, 1}, true);
              }),
              HasSubstr("no chat template"));

  folder.put("tokenizer_config.json",
             R"({"bos_token":"<s>","chat_template":[{"name":"tool_use","template":"?"},
                                                  {"name":"default","template":"{{ bos_token }}[INST] x [/INST]"}]})");
  const Tokenizer listed = Tokenizer::load(folder.path());
  EXPECT_EQ(listed.chat_template_name(), "mistral");
  EXPECT_EQ(listed.apply_chat_template({&hi, 1}, true), "<s>[INST] hi [/INST]");
  EXPECT_EQ(listed.encode("<s>[INST] hi [/INST]", {.add_special = false}).at(0), *listed.bos_id());

  folder.put("chat_template.jinja", "<|im_start|>");
  EXPECT_EQ(Tokenizer::load(folder.path()).chat_template_name(), "chatml");
}

}  // namespace
}  // namespace kva
