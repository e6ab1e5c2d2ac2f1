#include "runtime/model/tokenizer/chat_template.h"

#include <fmt/format.h>

#include "runtime/error.h"
#include "runtime/io/utf8.h"
#include "runtime/model/tokenizer/pattern.h"

namespace kva::tok {
namespace {

// Jinja's trim.
std::string trimmed(std::string_view text) {
  constexpr std::string_view kSpaces = " \t\n\r\f\v";
  const std::size_t begin = text.find_first_not_of(kSpaces);
  if (begin == std::string_view::npos) return "";
  return std::string(text.substr(begin, text.find_last_not_of(kSpaces) - begin + 1));
}

bool contains(const std::string& text, std::string_view part) { return text.find(part) != std::string::npos; }

// The text of a default system message: a whole, literal ChatML block in the template. A line break inside a
// Jinja string is written as \n.
std::string literal_system_message(const std::string& text) {
  static const Pattern pattern = Pattern::regex(
      R"(<\|im_start\|>system(?:\\n|\n)\K(?:(?!<\|im_|\{\{|\{%|'|").)+(?=<\|im_end\|>))", "chat template");
  Match match;
  if (!pattern.find(text, 0, match)) return "";
  const std::string_view literal = std::string_view(text).substr(match.begin, match.end - match.begin);
  static const Pattern line_break = Pattern::literal("\\n", "chat template");
  std::string message;
  for_each_span(line_break, literal, [&](std::size_t begin, std::size_t end, bool is_break) {
    message += is_break ? std::string_view("\n") : literal.substr(begin, end - begin);
  });
  return message;
}

void check_roles(std::span<const ChatMessage> messages) {
  if (messages.empty()) throw InputError("chat: expected at least one message, found none");
  for (std::size_t i = 0; i < messages.size(); ++i) {
    const std::string& role = messages[i].role;
    if (role == "user" || role == "assistant" || (role == "system" && i == 0)) continue;
    throw InputError(
        fmt::format("chat: message {}: expected the role user or assistant (or system, first), found {}", i,
                    quoted_for_error(role)));
  }
}

}  // namespace

ChatTemplate ChatTemplate::recognise(const std::string& text, const std::string& source) {
  ChatTemplate result;
  if (contains(text, "<|im_start|>")) {
    result.format_ = Format::kChatMl;
    result.default_system_ = literal_system_message(text);
  } else if (contains(text, "<|start_header_id|>")) {
    result.format_ = contains(text, "Cutting Knowledge Date") ? Format::kLlama31 : Format::kLlama3;
  } else if (contains(text, "[INST]")) {
    result.format_ = contains(text, "<<SYS>>") ? Format::kLlama2 : Format::kMistral;
    result.inst_open_ = contains(text, "[INST] ") ? "[INST] " : "[INST]";
    result.inst_close_ = contains(text, " [/INST]") ? " [/INST]" : "[/INST]";
    result.space_before_answer_ =
        contains(text, "' ' + message['content']") || contains(text, "\" \" + message");
  } else if (contains(text, "<|user|>") && contains(text, "<|assistant|>") && !contains(text, "<|end|>")) {
    result.format_ = Format::kZephyr;
  } else {
    throw InputError(
        fmt::format("{}: chat_template: expected ChatML, Llama 2, Llama 3, Mistral or Zephyr/TinyLlama, "
                    "found another format; "
                    "pass plain prompts instead",
                    source));
  }
  return result;
}

std::string ChatTemplate::name() const {
  switch (format_) {
    case Format::kChatMl: return "chatml";
    case Format::kLlama3: return "llama-3";
    case Format::kLlama31: return "llama-3.1";
    case Format::kLlama2: return "llama-2";
    case Format::kMistral: return "mistral";
    case Format::kZephyr: return "zephyr";
  }
  return "";
}

std::string ChatTemplate::render(std::span<const ChatMessage> messages, bool add_generation_prompt,
                                 const std::string& bos, const std::string& eos) const {
  check_roles(messages);
  switch (format_) {
    case Format::kChatMl: return render_chatml(messages, add_generation_prompt);
    case Format::kLlama3:
    case Format::kLlama31: return render_llama3(messages, add_generation_prompt, bos);
    case Format::kLlama2:
    case Format::kMistral: return render_inst(messages, bos, eos);
    case Format::kZephyr: break;
  }
  std::string out;
  for (const ChatMessage& message : messages)
    out += fmt::format("<|{}|>\n{}{}\n", message.role, message.content, eos);
  return out + (add_generation_prompt ? "<|assistant|>\n" : "");
}

std::string ChatTemplate::render_chatml(std::span<const ChatMessage> messages,
                                        bool add_generation_prompt) const {
  std::string out;
  if (!default_system_.empty() && messages[0].role != "system")
    out += fmt::format("<|im_start|>system\n{}<|im_end|>\n", default_system_);
  for (const ChatMessage& message : messages)
    out += fmt::format("<|im_start|>{}\n{}<|im_end|>\n", message.role, message.content);
  return out + (add_generation_prompt ? "<|im_start|>assistant\n" : "");
}

std::string ChatTemplate::render_llama3(std::span<const ChatMessage> messages, bool add_generation_prompt,
                                        const std::string& bos) const {
  std::string out = bos;
  const auto add = [&](std::string_view role, std::string_view content) {
    out += fmt::format("<|start_header_id|>{}<|end_header_id|>\n\n{}<|eot_id|>", role, content);
  };
  if (format_ == Format::kLlama31) {
    const bool has_system = messages[0].role == "system";
    // The template's own fixed date: a run must not depend on the day it is made.
    add("system", "Cutting Knowledge Date: December 2023\nToday Date: 26 Jul 2024\n\n" +
                      (has_system ? trimmed(messages[0].content) : ""));
    if (has_system) messages = messages.subspan(1);
  }
  for (const ChatMessage& message : messages) add(message.role, trimmed(message.content));
  return out + (add_generation_prompt ? "<|start_header_id|>assistant<|end_header_id|>\n\n" : "");
}

// Llama 2 and Mistral: the answer follows [/INST] at once, so there is no generation prompt.
std::string ChatTemplate::render_inst(std::span<const ChatMessage> messages, const std::string& bos,
                                      const std::string& eos) const {
  const bool llama2 = format_ == Format::kLlama2;
  std::string system;
  if (messages[0].role == "system") {
    if (!llama2)
      throw InputError(
          "chat: message 0: expected the role user (this Mistral format has no system role), found system");
    system = fmt::format("<<SYS>>\n{}\n<</SYS>>\n\n", messages[0].content);
    messages = messages.subspan(1);
  }
  std::string out = llama2 ? "" : bos;
  for (std::size_t i = 0; i < messages.size(); ++i) {
    const std::string& content = messages[i].content;
    if ((messages[i].role == "user") != (i % 2 == 0))
      throw InputError(
          "chat: expected messages of user and assistant in turn, found two of one role in a row");
    if (i % 2 == 1) {
      out += llama2 ? fmt::format(" {} {}", trimmed(content), eos)
                    : fmt::format("{}{}{}", space_before_answer_ ? " " : "", content, eos);
    } else if (llama2) {
      out += fmt::format("{}[INST] {} [/INST]", bos, trimmed((i == 0 ? system : "") + content));
    } else {
      out += inst_open_ + content + inst_close_;
    }
  }
  return out;
}

}  // namespace kva::tok
