#include "reports/ab_definitions.h"

#include <fmt/format.h>

namespace kva {

namespace {

// Of what is in the compressed cache.
std::vector<Definition> cache_definitions() {
  return {
      {"layer_error",
       "‖candidate − base‖ ÷ ‖base‖ of a layer's keys (after the position encoding) and of its values, over "
       "the tokens that the candidate still holds at the last scored token, the dense tail included, summed "
       "over KV heads and windows. What the errors of earlier layers and steps did to a token's own keys and "
       "values is in it. missing: share of tokens that were dropped or folded into others."},
      {"codec",
       "What compressing took over all windows. observe_seconds is spent within attention on what methods "
       "ask to be told; counters are the methods' own."},
  };
}

std::vector<Definition> passkey_definitions(const WindowOptions& windows, const PasskeyOptions& passkey) {
  return {
      {"passkey",
       fmt::format("A number of {} digits hidden in words of the text, {} prompts at each length (tokens of "
                   "prompt and question, at most) and depth (share of the words before the number). "
                   "Query-agnostic: the prompt is decoded in steps of {} through the recipe's cache and "
                   "compressed, the end of the prompt included, before the question is asked; then greedy "
                   "decoding. A trial is right if the digits of the answer are those of the number.",
                   kPasskeyDigits, passkey.trials, windows.chunk)},
      {"passkey_accuracy",
       fmt::format("Right trials over the informative cells, with Wilson's 95% interval. A cell (length and "
                   "depth) is informative if the dense f32 base is right in at least {:g}% of its trials.",
                   100 * passkey.informative)},
      {"digit_accuracy", "Right digits, place by place, over the same cells."},
  };
}

}  // namespace

std::vector<Definition> ab_definitions(const WindowOptions& windows, const PasskeyOptions& passkey) {
  std::vector<Definition> definitions = {
      {"window",
       fmt::format("{} tokens of the text in a cache of their own, fed in steps of {}: the first {} are "
                   "context, each later one is scored by the prediction before it. A step reads the "
                   "compressed past and its own exact tokens.",
                   windows.context, windows.chunk, windows.context / 2)},
      {"base", "The same tokens in the same steps on dense f32 pages."},
      {"baseline", "Dense f16 pages: what compression and effects are measured against."},
      {"bytes_held",
       "Payload, scales, side data, tables and slack of the cache at the last scored token, mean over "
       "the windows. Weights and workspace are not in it."},
      {"bits_per_value", "8 × bytes held ÷ K and V numbers of all tokens seen."},
      {"compression", "Dense f16 bytes of all tokens seen ÷ bytes held."},
      {"over_time", "The same with bytes and tokens summed over all steps of all windows."},
      {"perplexity", "exp of the mean loss of the scored tokens; delta_perplexity is perplexity ÷ base − 1."},
      {"kl", "KL(base‖candidate) of the next token's whole distribution, in nats, computed in f64."},
      {"top1_agreement",
       "Share of scored positions where base and candidate find the same token most likely."},
      {"delta_p", "The candidate's probability of the true token less the base's."},
      {"interval", "95%, moving-block bootstrap over the scored tokens; rows are paired."},
      {"noise_floor",
       "What two exact caches differ by: the base in longer steps, and f16 against f32 pages."},
      {"effect",
       "What of bytes and logits differed from the baseline after any step; \"no effect\": nothing did."},
      {"equal_bytes",
       "The row less the curve of recipes that differ in numbers alone, interpolated at the row's "
       "bytes between those that no other of the curve beats in bytes and mean KL."},
      {"against_bases",
       "A row that merges tokens less the row that drops those tokens and is else the same."},
      {"front", "No other row has both fewer bytes and a lower mean KL."},
      {"capacity",
       "What a budget holds at the measured bytes of a token (held less side data, ÷ tokens seen), side data "
       "charged once a sequence: tokens of one sequence, the longest context (no longer than the model's "
       "positions), and sequences of a window's length. Weights and workspace come on top."},
      {"decode_tokens_per_s",
       "Greedy decoding at the end of a context, compression included, the recipe alone in "
       "memory; median of the runs."},
  };
  const auto add = [&](const std::vector<Definition>& more) {
    definitions.insert(definitions.end(), more.begin(), more.end());
  };
  add(cache_definitions());
  if (passkey.run) add(passkey_definitions(windows, passkey));
  return definitions;
}

}  // namespace kva
