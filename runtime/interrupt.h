// Ctrl-C as a flag that long work polls.
#pragma once

namespace kva {

// Installs handlers for SIGINT and SIGTERM: the first sets the flag, a second one ends the process at once.
void install_interrupt_handler();

bool interrupt_requested();

// Throws Interrupted when a signal came. Cheap enough for every chunk of work; call it at least every 100 ms.
void throw_if_interrupted();

}  // namespace kva
