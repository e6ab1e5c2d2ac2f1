#include "runtime/interrupt.h"

#include <pthread.h>
#include <signal.h>
#include <unistd.h>

#include <atomic>
#include <thread>

#include "runtime/error.h"

namespace kva {
namespace {

std::atomic<bool> requested{false};
std::atomic<int> holds{0};
static_assert(std::atomic<bool>::is_always_lock_free && std::atomic<int>::is_always_lock_free,
              "the handler may only touch lock-free state");

void on_signal(int) {
  if (requested.exchange(true) && holds.load() == 0) _exit(130);
}

// Takes the signals that every other thread of ours has blocked.
void take_signals(sigset_t signals) {
  pthread_sigmask(SIG_UNBLOCK, &signals, nullptr);
  for (;;) pause();
}

}  // namespace

void install_interrupt_handler() {
  struct sigaction action = {};
  action.sa_handler = on_signal;
  sigemptyset(&action.sa_mask);
  sigaction(SIGINT, &action, nullptr);
  sigaction(SIGTERM, &action, nullptr);
  sigset_t signals;
  sigemptyset(&signals);
  sigaddset(&signals, SIGINT);
  sigaddset(&signals, SIGTERM);
  pthread_sigmask(SIG_BLOCK, &signals, nullptr);
  std::thread(take_signals, signals).detach();
}

bool interrupt_requested() { return requested.load(std::memory_order_relaxed); }

void throw_if_interrupted() {
  if (interrupt_requested()) throw Interrupted();
}

HoldExit::HoldExit() { ++holds; }
HoldExit::~HoldExit() { --holds; }

void set_child_signal_mask(posix_spawnattr_t& attributes) {
  sigset_t signals;
  sigemptyset(&signals);
  posix_spawnattr_setsigmask(&attributes, &signals);
  posix_spawnattr_setflags(&attributes, POSIX_SPAWN_SETSIGMASK);
}

}  // namespace kva
