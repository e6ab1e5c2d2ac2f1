// Passkey retrieval: a number planted in unrelated text, asked for at the end (Mohtashami and Jaggi,
// Landmark Attention, arXiv 2305.16300). The prompts and what counts as an answer; passkey_run.h runs them.
#pragma once

#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

#include "runtime/model/model_config.h"
#include "runtime/model/tokenizer.h"

namespace kva {

inline constexpr int kPasskeyDigits = 5;
// An answer is read as long as its digits go on, and never further than this.
inline constexpr int kPasskeyAnswerTokens = kPasskeyDigits + 3;

struct PasskeyOptions {
  bool run = false;
  std::vector<double> depths = {0, 0.25, 0.5, 0.75, 1};  // share of the filler before the key
  // Tokens of prompt and question, at most. Empty: 512, 1024 and 2048, or a quarter, half and all of what
  // the model has positions for.
  std::vector<int64_t> lengths;
  int trials = 20;  // at each length and depth
  // Share of right answers that the dense base needs for a length and depth to tell anything of recipes.
  double informative = 0.8;
};

struct PasskeyTrial {
  std::vector<int32_t> prompt;    // instruction, filler and key: what is compressed
  std::vector<int32_t> question;  // asked of the compressed cache
  std::string key;
};

// All trials of a length and depth.
struct PasskeyCell {
  int64_t length = 0;
  double depth = 0;
  std::vector<PasskeyTrial> trials;

  int64_t tokens() const;  // of all prompts and questions
};

// The options with lengths that suit the model where there are none. Throws InputError for depths outside [0,
// 1] or given twice, for lengths that are given twice or that the model has no positions for with an answer,
// for no trials, and for more than 100 million tokens in all.
PasskeyOptions settled_passkey(PasskeyOptions options, const ModelConfig& config);

// Of settled options: lengths in the order given, depths within each. The filler is words of `text`, from a
// place and with a key that are drawn for each trial from seed, length, depth and number alone: other
// lengths, depths or more trials leave a trial as it is. Texts that are too short begin again. Throws
// InputError where a length has no room for the key, or the text has no words; Interrupted.
std::vector<PasskeyCell> plan_passkey(const PasskeyOptions& options, std::string_view text,
                                      const Tokenizer& tokenizer, uint64_t seed);

// What a model has answered, compared with the key.
struct PasskeyScore {
  bool exact = false;
  int digits = 0;      // right ones, place by place
  bool final = false;  // whatever follows does not change the score
};
PasskeyScore score_passkey(std::string_view answer, std::string_view key);

// The prompt with "<filler>" and "<key>" in their places, for the report.
std::string passkey_template();

}  // namespace kva
