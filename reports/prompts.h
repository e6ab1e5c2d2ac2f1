// Prompts: three built-in sets, and files in the formats that users already have.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

namespace kva {

struct Prompt {
  std::string set;                      // prompts of one set are compared with those of another
  std::string name;                     // unique within its set
  std::string text;                     // valid UTF-8, not empty
  std::vector<std::string> turns = {};  // of a dialogue: what `text` joins; else empty
};

struct PromptSource {
  std::vector<std::string> sets;         // built-in sets by name: general, repetitive, code
  std::vector<std::string> texts;        // given on the command line
  std::vector<std::string> files;        // .txt (a prompt a line), .json (an array), .jsonl (a prompt a line)
  std::vector<std::string> whole_files;  // any text file as one prompt
  // The member that holds the prompt in JSON and JSONL objects; empty: the first of prompt, text, turns,
  // question, instruction, content. An array of strings (the turns of a dialogue) is joined by blank lines.
  std::string field;
  int64_t limit = 0;  // prompts of each set, 0 for all
};

// Names of the built-in sets.
std::vector<std::string> builtin_prompt_sets();

// Prompts grouped by set, in the order given. Nothing named: all built-in sets. Throws InputError on unknown
// sets, missing or malformed files, empty or binary prompts.
std::vector<Prompt> load_prompts(const PromptSource& source);

// The built-in general prompts as one text, for what needs a text and was given none.
std::string general_text();

}  // namespace kva
