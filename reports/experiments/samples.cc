#include "reports/experiments/samples.h"

#include <fmt/format.h>

#include <algorithm>

#include "reports/passkey.h"
#include "reports/run_text.h"
#include "runtime/error.h"

namespace kva {
namespace {

constexpr const char* kBetweenTurns = "\n\n";

template <typename Work>
auto at_place(const ConfigPlace& place, Work work) {
  try {
    return work();
  } catch (const InputError& error) {
    fail_at(place, error.what());
  }
}

std::vector<std::string> turns_of(const Prompt& prompt) {
  return prompt.turns.empty() ? std::vector<std::string>{prompt.text} : prompt.turns;
}

// What stands between an answer and the next one: the template of three messages behind that of one.
std::string following_turn(const Tokenizer& tokenizer, const std::string& text) {
  constexpr const char* kAnswer = "answer";
  const ChatMessage first{"user", "question"};
  const std::vector<ChatMessage> three = {first, {"assistant", kAnswer}, {"user", text}};
  const std::string before = tokenizer.apply_chat_template({&first, 1}, true) + kAnswer;
  const std::string all = tokenizer.apply_chat_template(three, true);
  if (all.rfind(before, 0) != 0)
    throw InputError(
        "chat: expected a template that keeps answers as they are, found one that does not; use "
        "prompts of one turn");
  return all.substr(before.size());
}

SampleTurn encode_turn(const std::string& text, bool first, bool chat, const Tokenizer& tokenizer) {
  SampleTurn turn{.text = text, .ids = {}};
  if (chat)
    turn.ids = first ? tokenizer.encode_chat(text)
                     : tokenizer.encode(following_turn(tokenizer, text), {.add_special = false});
  else
    turn.ids =
        first ? tokenizer.encode(text) : tokenizer.encode(kBetweenTurns + text, {.add_special = false});
  if (turn.ids.empty()) throw InputError("expected a prompt of one token at least, found none");
  return turn;
}

// Repeats or cuts the first prompt.
void set_length(Sample& sample, int64_t length, const Tokenizer& tokenizer) {
  std::vector<int32_t>& ids = sample.turns.front().ids;
  const auto wanted = static_cast<std::size_t>(length);
  sample.context_length = length;
  if (ids.size() < wanted) {
    const std::size_t once = ids.size();
    const std::vector<int32_t> again =
        tokenizer.encode(kBetweenTurns + sample.turns.front().text, {.add_special = false});
    while (ids.size() < wanted) ids.insert(ids.end(), again.begin(), again.end());
    sample.remarks.push_back(fmt::format("the prompt of {} tokens was repeated up to {}", once, length));
  }
  ids.resize(wanted);
}

void fit(const Experiment& experiment, const ModelConfig& config, Sample& sample) {
  int64_t most = config.usable_positions();
  if (experiment.max_context > 0) most = std::min(most, experiment.max_context);
  const int64_t answers = sample.answers() * experiment.max_gen_tokens;
  const int64_t over = sample.prompt_tokens() + answers - most;
  if (over <= 0) return;
  std::vector<int32_t>& ids = sample.turns.front().ids;
  const auto count = static_cast<int64_t>(ids.size());
  if (over >= count || sample.context_length > 0 || experiment.chat || !sample.key.empty())
    throw InputError(fmt::format(
        "{} of {}: expected prompts and answers of at most {} tokens, found {}; the model ends at {}",
        sample.name, sample.set, most, sample.prompt_tokens() + answers, config.usable_positions_reason()));
  ids.resize(static_cast<std::size_t>(count - over));
  sample.remarks.push_back(fmt::format("the prompt was cut from {} to {} tokens", count, count - over));
}

void add_prompts(const Experiment& experiment, const PromptChoice& choice, const FoundModel& found,
                 std::vector<Sample>& samples) {
  PromptSource source = choice.source;
  source.limit = experiment.limit;
  std::vector<int64_t> lengths = experiment.context_lengths;
  if (lengths.empty()) lengths = {0};
  if (lengths.front() > 0 && experiment.chat)
    throw InputError("context_lengths: expected none with chat, which would be cut in its template");
  for (const Prompt& prompt : load_prompts(source)) {
    Sample sample{.set = prompt.set, .name = prompt.name};
    for (const std::string& text : turns_of(prompt)) {
      if (text.find_first_not_of(" \t\r\n") == std::string::npos)
        throw InputError(fmt::format("{} of {}: a turn is empty", prompt.name, prompt.set));
      sample.turns.push_back(encode_turn(text, sample.turns.empty(), experiment.chat, found.tokenizer));
    }
    for (const int64_t length : lengths) {
      Sample one = sample;
      if (length > 0) set_length(one, length, found.tokenizer);
      fit(experiment, found.config, one);
      samples.push_back(std::move(one));
    }
  }
}

void add_passkeys(const Experiment& experiment, const FoundModel& found, uint64_t seed,
                  std::vector<Sample>& samples) {
  const PasskeyChoice& passkey = experiment.passkey;
  PasskeyOptions options{
      .run = true, .depths = passkey.depths, .lengths = experiment.context_lengths, .trials = passkey.trials};
  options = settled_passkey(options, found.config);
  for (PasskeyCell& cell : plan_passkey(options, text_or_general(passkey.text_file), found.tokenizer, seed)) {
    int number = 0;
    for (PasskeyTrial& trial : cell.trials) {
      Sample sample{.set = "passkey",
                    .name = fmt::format("depth-{:g}-{}", cell.depth, ++number),
                    .context_length = cell.length,
                    .key = trial.key};
      // The question comes after the prompt has been compressed.
      sample.turns.push_back({found.tokenizer.decode(trial.prompt), std::move(trial.prompt), false});
      sample.turns.push_back({found.tokenizer.decode(trial.question), std::move(trial.question), true});
      fit(experiment, found.config, sample);
      samples.push_back(std::move(sample));
    }
  }
}

// A set may come from several sources, and a file may name two records alike.
void number_names(std::vector<Sample>& samples) {
  for (std::size_t i = 0; i < samples.size(); ++i) {
    const std::string name = samples[i].name;
    const auto same = [&](const Sample& other) {
      return other.set == samples[i].set && other.name == samples[i].name &&
             other.context_length == samples[i].context_length;
    };
    const auto end = samples.begin() + static_cast<std::ptrdiff_t>(i);
    for (int number = 2; std::any_of(samples.begin(), end, same); ++number)
      samples[i].name = fmt::format("{}-{}", name, number);
  }
}

}  // namespace

int64_t Sample::prompt_tokens() const {
  int64_t sum = 0;
  for (const SampleTurn& turn : turns) sum += static_cast<int64_t>(turn.ids.size());
  return sum;
}

int64_t Sample::answers() const {
  return std::count_if(turns.begin(), turns.end(), [](const SampleTurn& turn) { return turn.answered; });
}

std::vector<Sample> load_samples(const Experiment& experiment, const FoundModel& found, uint64_t seed) {
  std::vector<Sample> samples;
  for (const PromptChoice& choice : experiment.prompts)
    at_place(choice.place, [&] { add_prompts(experiment, choice, found, samples); });
  if (experiment.passkey.asked)
    at_place(experiment.passkey.place, [&] { add_passkeys(experiment, found, seed, samples); });
  number_names(samples);
  return samples;
}

}  // namespace kva
