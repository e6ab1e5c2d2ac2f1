#include "reports/prompts.h"

#include <fmt/format.h>
#include <fmt/ranges.h>

#include <algorithm>
#include <array>
#include <filesystem>
#include <map>

#include "reports/assets.h"
#include "runtime/error.h"
#include "runtime/io/file.h"
#include "runtime/io/json.h"
#include "runtime/io/utf8.h"

namespace kva {
namespace {

constexpr int64_t kMaxFileBytes = int64_t{64} << 20;
constexpr std::array kFieldNames = {"prompt", "text", "turns", "question", "instruction", "content"};

void check_text(const std::string& text, const std::string& where) {
  if (text.find('\0') != std::string::npos)
    throw InputError(fmt::format("{}: expected text, found a zero byte: is this a binary file?", where));
  if (const auto bad = first_invalid_utf8(text))
    throw InputError(fmt::format("{}: expected UTF-8, found byte 0x{:02x} at offset {}", where,
                                 static_cast<unsigned char>(text[*bad]), *bad));
  if (text.find_first_not_of(" \t\r\n") == std::string::npos)
    throw InputError(fmt::format("{}: the prompt is empty", where));
}

std::vector<std::string> lines_of(const std::string& text) {
  std::vector<std::string> lines;
  std::size_t start = 0;
  while (start < text.size()) {
    std::size_t end = text.find('\n', start);
    if (end == std::string::npos) end = text.size();
    std::string line = text.substr(start, end - start);
    if (!line.empty() && line.back() == '\r') line.pop_back();
    lines.push_back(std::move(line));
    start = end + 1;
  }
  return lines;
}

void set_text(const JsonNode& value, Prompt& prompt) {
  if (!value.is_array()) {
    prompt.text = value.as_string();
    return;
  }
  for (int64_t i = 0; i < value.size(); ++i) {
    prompt.turns.push_back(value.at(i).as_string());
    prompt.text += (i > 0 ? "\n\n" : "") + prompt.turns.back();
  }
}

JsonNode prompt_member(const JsonNode& record, const std::string& field) {
  if (!field.empty()) {
    if (auto found = record.find(field)) return *found;
  } else {
    for (const char* name : kFieldNames)
      if (auto found = record.find(name)) return *found;
  }
  throw InputError(fmt::format("{}: {}: expected a member {}, found {}; name it with --prompt-field",
                               record.source(), record.path().empty() ? "record" : record.path(),
                               field.empty() ? fmt::format("{}", fmt::join(kFieldNames, ", ")) : field,
                               fmt::join(record.keys(), ", ")));
}

Prompt prompt_from(const JsonNode& record, const std::string& set, const std::string& name,
                   const std::string& field) {
  Prompt prompt{.set = set, .name = name, .text = ""};
  if (record.is_object()) {
    prompt.set = record.get_string("set", set);
    prompt.name = record.get_string("name", name);
    set_text(prompt_member(record, field), prompt);
  } else {
    set_text(record, prompt);
  }
  check_text(prompt.text,
             fmt::format("{}: {}", record.source(), record.path().empty() ? name : record.path()));
  return prompt;
}

std::vector<Prompt> parse_jsonl(const std::string& text, const std::string& source, const std::string& set,
                                const std::string& field) {
  std::vector<Prompt> prompts;
  int64_t number = 0;
  for (const std::string& line : lines_of(text)) {
    ++number;
    if (line.find_first_not_of(" \t") == std::string::npos) continue;
    const JsonNode record = JsonNode::parse_text(line, fmt::format("{}:{}", source, number));
    prompts.push_back(prompt_from(record, set, fmt::format("line-{}", number), field));
  }
  return prompts;
}

std::vector<Prompt> parse_json(const std::string& text, const std::string& source, const std::string& set,
                               const std::string& field) {
  const JsonNode root = JsonNode::parse_text(text, source);
  if (!root.is_array()) root.fail("an array of prompts");
  std::vector<Prompt> prompts;
  for (int64_t i = 0; i < root.size(); ++i)
    prompts.push_back(prompt_from(root.at(i), set, fmt::format("prompt-{}", i + 1), field));
  return prompts;
}

std::vector<Prompt> parse_text_lines(const std::string& text, const std::string& source,
                                     const std::string& set) {
  std::vector<Prompt> prompts;
  int64_t number = 0;
  for (const std::string& line : lines_of(text)) {
    ++number;
    if (line.find_first_not_of(" \t") == std::string::npos) continue;
    check_text(line, fmt::format("{}:{}", source, number));
    prompts.push_back({.set = set, .name = fmt::format("line-{}", number), .text = line});
  }
  return prompts;
}

std::vector<Prompt> load_file(const std::string& path, const std::string& field) {
  const std::string text = read_text_file(path, kMaxFileBytes);
  const std::filesystem::path name(path);
  const std::string set = name.stem().string();
  const std::string extension = name.extension().string();
  std::vector<Prompt> prompts;
  if (extension == ".jsonl" || extension == ".ndjson") {
    prompts = parse_jsonl(text, path, set, field);
  } else if (extension == ".json") {
    prompts = parse_json(text, path, set, field);
  } else {
    prompts = parse_text_lines(text, path, set);
  }
  if (prompts.empty()) throw InputError(fmt::format("{}: expected at least one prompt, found none", path));
  return prompts;
}

std::vector<Prompt> load_builtin(const std::string& set) {
  const auto names = builtin_prompt_sets();
  if (std::find(names.begin(), names.end(), set) == names.end())
    throw InputError(fmt::format("--prompt-set: expected one of {}, found {}", fmt::join(names, ", "), set));
  return parse_jsonl(std::string(asset(set + ".jsonl")), set + ".jsonl", set, "text");
}

// Keeps prompts of one set together and drops those over the limit.
std::vector<Prompt> grouped(std::vector<Prompt> prompts, int64_t limit) {
  std::vector<std::string> order;
  std::map<std::string, std::vector<Prompt>> by_set;
  for (Prompt& prompt : prompts) {
    auto& set = by_set[prompt.set];
    if (set.empty()) order.push_back(prompt.set);
    if (limit == 0 || static_cast<int64_t>(set.size()) < limit) set.push_back(std::move(prompt));
  }
  std::vector<Prompt> result;
  for (const std::string& name : order)
    for (Prompt& prompt : by_set[name]) result.push_back(std::move(prompt));
  return result;
}

}  // namespace

std::vector<std::string> builtin_prompt_sets() { return {"general", "repetitive", "code"}; }

std::vector<Prompt> load_prompts(const PromptSource& source) {
  std::vector<Prompt> prompts;
  const auto append = [&](std::vector<Prompt> more) {
    prompts.insert(prompts.end(), std::make_move_iterator(more.begin()), std::make_move_iterator(more.end()));
  };
  std::vector<std::string> sets = source.sets;
  if (sets.empty() && source.texts.empty() && source.files.empty() && source.whole_files.empty())
    sets = builtin_prompt_sets();
  for (const std::string& set : sets) append(load_builtin(set));
  for (std::size_t i = 0; i < source.texts.size(); ++i) {
    const std::string name = fmt::format("prompt-{}", i + 1);
    check_text(source.texts[i], "--prompt");
    prompts.push_back({"prompts", name, source.texts[i]});
  }
  for (const std::string& path : source.files) append(load_file(path, source.field));
  for (const std::string& path : source.whole_files) {
    const std::string text = read_text_file(path, kMaxFileBytes);
    check_text(text, path);
    prompts.push_back({"files", std::filesystem::path(path).filename().string(), text});
  }
  return grouped(std::move(prompts), source.limit);
}

std::string general_text() {
  std::string text;
  for (const Prompt& prompt : load_prompts({.sets = {"general"}})) text += prompt.text + "\n\n";
  return text;
}

}  // namespace kva
