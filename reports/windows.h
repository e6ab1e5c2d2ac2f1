// Which tokens of a text a quality run feeds and scores: non-overlapping windows, the first half of each is
// context, the second half is scored. Pure arithmetic; docs/measuring.md explains the protocol.
#pragma once

#include <cstdint>
#include <vector>

namespace kva {

struct WindowOptions {
  int64_t context = 2048;  // tokens of a window
  int64_t tokens = 0;      // scored at most, over all windows; 0: as many whole windows as the text has
  int64_t chunk = 64;      // tokens of a step, whatever the page size
  int64_t turns = 1;       // the scored half is cut into so many turns of equal length
};

// One decoder step: positions [start, start + tokens) of the window. Its rows [first_logit, first_logit +
// logits) predict scored tokens; a prediction at position t is of token t + 1.
struct WindowStep {
  int64_t start = 0;
  int64_t tokens = 0;
  int64_t first_logit = 0;
  int64_t logits = 0;
  int64_t prompt_tokens =
      0;                   // more than 0: with this step begins a context or turn of so many that ends_turn
  bool ends_turn = false;  // the context or a turn is complete after this step, and another turn follows
};

struct Window {
  int64_t first_token = 0;   // in the text
  int64_t tokens = 0;        // fed
  int64_t first_scored = 0;  // position of the first scored token
  int64_t scored = 0;        // tokens at positions [first_scored, first_scored + scored)
};

// Throws InputError for options that cannot be (context under 2, chunk outside [1, context / 2], turns that
// leave a turn without token) and for a text of fewer tokens than one window; `source` names the text in
// errors. The last window scores what is left of options.tokens, and is fed no further than that.
std::vector<Window> plan_windows(int64_t text_tokens, const WindowOptions& options, const char* source);

// Steps of at most `chunk` tokens from position 0 on, cut also where the context and each turn end, so that
// a step never spans two turns.
std::vector<WindowStep> window_steps(const Window& window, const WindowOptions& options);

// The turn (from 0) that the scored token number `index` of a window belongs to.
int64_t turn_of(int64_t index, const WindowOptions& options);

}  // namespace kva
