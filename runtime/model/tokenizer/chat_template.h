// Chat templates. A model's template is a Jinja program; instead of running it, the published formats are
// recognised by what their templates contain and written out here.
#pragma once

#include <span>
#include <string>

namespace kva {

struct ChatMessage {
  std::string role;  // "system" (first message only), "user" or "assistant"
  std::string content;
};

namespace tok {

class ChatTemplate {
 public:
  // Throws InputError, naming `source`, for a template of no known format.
  static ChatTemplate recognise(const std::string& text, const std::string& source);

  // "chatml", "llama-3", "llama-3.1", "llama-2", "mistral" or "zephyr".
  std::string name() const;

  // bos and eos are the texts of these tokens. With add_generation_prompt the text ends where the assistant's
  // answer begins. Throws InputError for roles that the format lacks.
  std::string render(std::span<const ChatMessage> messages, bool add_generation_prompt,
                     const std::string& bos, const std::string& eos) const;

 private:
  enum class Format { kChatMl, kLlama3, kLlama31, kLlama2, kMistral, kZephyr };
  std::string render_chatml(std::span<const ChatMessage> messages, bool add_generation_prompt) const;
  std::string render_llama3(std::span<const ChatMessage> messages, bool add_generation_prompt,
                            const std::string& bos) const;
  std::string render_inst(std::span<const ChatMessage> messages, const std::string& bos,
                          const std::string& eos) const;

  Format format_ = Format::kChatMl;
  std::string default_system_;  // chatml: what the template says where the messages have no system message
  std::string inst_open_;       // mistral: "[INST] " or "[INST]"
  std::string inst_close_;      // mistral: " [/INST]" or "[/INST]"
  bool space_before_answer_ = false;  // mistral
};

}  // namespace tok
}  // namespace kva
