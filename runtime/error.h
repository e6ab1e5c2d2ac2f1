// The error family for mistakes of the caller or of a file: bad options, bad files, a missing model. The
// program prints the message on one line and exits with code 1. For our own mistakes use KVA_CHECK.
#pragma once

#include <stdexcept>
#include <string>

namespace kva {

// what() is one line that says where (file, field), what was expected, what was found and, where it helps,
// what to do next.
class InputError : public std::runtime_error {
 public:
  using std::runtime_error::runtime_error;
};

// Thrown from inside long work after Ctrl-C (runtime/interrupt.h); the program exits with code 130.
class Interrupted : public std::runtime_error {
 public:
  Interrupted() : std::runtime_error("interrupted") {}
};

}  // namespace kva
