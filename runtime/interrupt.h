// Ctrl-C as a flag that long work polls.
#pragma once

#include <spawn.h>

namespace kva {

// From now on the first SIGINT or SIGTERM sets the flag, and a second one ends the process at once. Call it
// first thing in main(), before it starts a thread: the signals are blocked in the calling thread and all
// that it starts, but for one that does nothing else. So no handler runs on top of a thread that computes:
// kernels made at run time (oneDNN's) keep values below their stack pointer, where a signal's frame overwrote
// them.
void install_interrupt_handler();

bool interrupt_requested();

// Throws Interrupted when a signal came. Cheap enough for every chunk of work; call it at least every 100 ms.
void throw_if_interrupted();

// While one lives, a second signal does not end the process: for the few renames that must all happen.
class HoldExit {
 public:
  HoldExit();
  ~HoldExit();
  HoldExit(const HoldExit&) = delete;
  HoldExit& operator=(const HoldExit&) = delete;
};

// Lets a child process have signals as if this program had never blocked any.
void set_child_signal_mask(posix_spawnattr_t& attributes);

}  // namespace kva
