#include "reports/passkey.h"

#include <fmt/format.h>

#include <algorithm>
#include <cmath>

#include "analyzer/redundancy/seeded.h"
#include "reports/text_format.h"
#include "runtime/backend/host_memory.h"
#include "runtime/error.h"
#include "runtime/interrupt.h"

namespace kva {
namespace {

constexpr int64_t kMostTokens = 100'000'000;
constexpr std::size_t kMostPlaces = 64;  // of lengths, of depths
constexpr int kMostTrials = 100'000;

// Of the wordings tried on SmolLM2-135M's dense cache (docs/measuring.md) the one that it answers best.
constexpr const char* kInstruction =
    "There is an important info hidden inside a lot of irrelevant text. Find it and memorize it. I will quiz "
    "you about the important information there.\n";
constexpr const char* kQuestion = "\nWhat is the special magic number? The special magic number is";

std::string needle(std::string_view key) {
  return fmt::format("\nThe special magic number is {0}. Remember it. {0} is the special magic number.\n",
                     key);
}

std::vector<std::string_view> words_of(std::string_view text) {
  constexpr std::string_view kSpace = " \t\r\n\v\f";
  std::vector<std::string_view> words;
  for (std::size_t at = text.find_first_not_of(kSpace); at != std::string_view::npos;) {
    const std::size_t end = std::min(text.find_first_of(kSpace, at), text.size());
    words.push_back(text.substr(at, end - at));
    at = text.find_first_not_of(kSpace, end);
  }
  return words;
}

void add_words(std::string& text, const std::vector<std::string_view>& words, int64_t first, int64_t count) {
  for (int64_t i = 0; i < count; ++i) {
    if (i > 0) text += ' ';
    text += words[static_cast<std::size_t>(first + i) % words.size()];
  }
}

// One stream of random numbers a trial, whatever other trials there are.
SeededRandom stream_of(uint64_t seed, int64_t length, double depth, int trial) {
  const uint64_t cell = SplitMix64(static_cast<uint64_t>(length)).next() ^
                        SplitMix64(~static_cast<uint64_t>(std::llround(depth * 1e9))).next();
  return {seed, cell + static_cast<uint64_t>(trial)};
}

// A trial under construction: everything but how many words there are.
class TrialMaker {
 public:
  TrialMaker(const std::vector<std::string_view>& words, const Tokenizer& tokenizer, SeededRandom random,
             double depth)
      : words_(words),
        tokenizer_(tokenizer),
        depth_(depth),
        first_(random.below(static_cast<int64_t>(words.size()))),
        key_(fmt::to_string(10'000 + random.below(90'000))) {}

  // The longest that fits; throws InputError where none does.
  PasskeyTrial make(int64_t length) const {
    const auto tokens = [&](int64_t words) {
      return static_cast<int64_t>(encode(prompt(words) + kQuestion).size());
    };
    if (const int64_t least = tokens(0); least > length)
      throw InputError(
          fmt::format("--passkey-lengths: expected at least {} tokens, what key and question take, found {}",
                      least, length));
    int64_t fits = 0, too_many = length;  // a word is a token at least
    while (too_many - fits > 1) {
      const int64_t middle = fits + (too_many - fits) / 2;
      (tokens(middle) <= length ? fits : too_many) = middle;
    }
    return cut(prompt(fits));
  }

 private:
  std::vector<int32_t> encode(const std::string& text) const {
    return tokenizer_.encode(text, {.parse_special = false});
  }

  std::string prompt(int64_t words) const {
    const auto before = static_cast<int64_t>(std::llround(depth_ * static_cast<double>(words)));
    std::string text = kInstruction;
    add_words(text, words_, first_, before);
    text += needle(key_);
    add_words(text, words_, first_ + before, words - before);
    return text;
  }

  // Where the ids of prompt and question part from those of the prompt alone, the question begins: a token
  // may reach over the seam.
  PasskeyTrial cut(const std::string& prompt) const {
    PasskeyTrial trial;
    trial.key = key_;
    const std::vector<int32_t> whole = encode(prompt + kQuestion), alone = encode(prompt);
    const auto seam = std::mismatch(whole.begin(), whole.end() - 1, alone.begin(), alone.end()).first;
    trial.prompt.assign(whole.begin(), seam);
    trial.question.assign(seam, whole.end());
    return trial;
  }

  const std::vector<std::string_view>& words_;
  const Tokenizer& tokenizer_;
  double depth_;
  int64_t first_;
  std::string key_;
};

template <typename T>
bool has_twice(std::vector<T> values) {
  std::sort(values.begin(), values.end());
  return std::adjacent_find(values.begin(), values.end()) != values.end();
}

}  // namespace

int64_t PasskeyCell::tokens() const {
  int64_t sum = 0;
  for (const PasskeyTrial& trial : trials)
    sum += static_cast<int64_t>(trial.prompt.size() + trial.question.size());
  return sum;
}

PasskeyOptions settled_passkey(PasskeyOptions options, const ModelConfig& config) {
  const auto refuse = [](const char* option, const std::string& expected, const std::string& found) {
    throw InputError(fmt::format("{}: expected {}, found {}", option, expected, found));
  };
  const int64_t most = config.usable_positions() - kPasskeyAnswerTokens;
  if (options.lengths.empty()) {
    options.lengths = {512, 1024, 2048};
    if (options.lengths.back() > most) options.lengths = {most / 4, most / 2, most};
  }
  const std::string places = fmt::format("1 to {}, each once", kMostPlaces);
  if (options.depths.empty() || options.depths.size() > kMostPlaces || has_twice(options.depths))
    refuse("--passkey-depths", places, fmt::format("{}", fmt::join(options.depths, ",")));
  if (options.lengths.empty() || options.lengths.size() > kMostPlaces || has_twice(options.lengths))
    refuse("--passkey-lengths", places, fmt::format("{}", fmt::join(options.lengths, ",")));
  for (const double depth : options.depths)
    if (!(depth >= 0 && depth <= 1)) refuse("--passkey-depths", "shares from 0 to 1", fmt::to_string(depth));
  for (const int64_t length : options.lengths)
    if (length < 1 || length > most)
      refuse("--passkey-lengths",
             fmt::format("1 to {} tokens (the model ends at {}, an answer takes {})", most,
                         config.usable_positions_reason(), kPasskeyAnswerTokens),
             fmt::to_string(length));
  if (options.trials < 1 || options.trials > kMostTrials)
    refuse("--passkey-trials", fmt::format("1 to {}", kMostTrials), fmt::to_string(options.trials));
  double tokens = 0;
  for (const int64_t length : options.lengths)
    tokens += static_cast<double>(length) * options.trials * static_cast<double>(options.depths.size());
  const int64_t longest = *std::max_element(options.lengths.begin(), options.lengths.end());
  const int64_t needed = longest * config.kv_bytes_per_token(DType::kF32, DType::kF32);
  if (const int64_t available = host_memory().available_bytes; needed > available)
    throw InputError(fmt::format(
        "--passkey-lengths: {} tokens need about {} MiB of memory, {} MiB are free; use shorter ones",
        longest, needed >> 20, available >> 20));
  if (tokens > kMostTokens)
    refuse("--passkey-trials", fmt::format("prompts of at most {} tokens in all", format_count(kMostTokens)),
           format_count(tokens));
  return options;
}

std::vector<PasskeyCell> plan_passkey(const PasskeyOptions& options, std::string_view text,
                                      const Tokenizer& tokenizer, uint64_t seed) {
  const std::vector<std::string_view> words = words_of(text);
  if (words.empty()) throw InputError("--passkey: expected a text with words to hide the key in, found none");
  std::vector<PasskeyCell> cells;
  for (const int64_t length : options.lengths) {
    for (const double depth : options.depths) {
      cells.push_back({.length = length, .depth = depth, .trials = {}});
      for (int trial = 0; trial < options.trials; ++trial) {
        throw_if_interrupted();
        cells.back().trials.push_back(
            TrialMaker(words, tokenizer, stream_of(seed, length, depth, trial), depth).make(length));
      }
    }
  }
  return cells;
}

PasskeyScore score_passkey(std::string_view answer, std::string_view key) {
  answer.remove_prefix(std::min(answer.find_first_not_of(" \t\n"), answer.size()));
  const std::size_t end = std::min(answer.find_first_not_of("0123456789"), answer.size());
  PasskeyScore score;
  for (std::size_t i = 0; i < std::min(end, key.size()); ++i) score.digits += answer[i] == key[i] ? 1 : 0;
  score.exact = answer.substr(0, end) == key;
  score.final = end < answer.size() || end > key.size();
  return score;
}

std::string passkey_template() {
  return fmt::format("{}<filler>{}<filler>{}", kInstruction, needle("<key>"), kQuestion);
}

}  // namespace kva
