// Assertions for our own mistakes. A failed check is a bug in kvanalyze: it prints where and what, and
// aborts the process with exit code 2. For mistakes of the caller or of a file, throw
// kva::InputError (runtime/error.h) instead.
#pragma once

namespace kva {

[[noreturn]] void check_failed(const char* file, int line, const char* condition, const char* message);

}  // namespace kva

#define KVA_CHECK(condition, message)                               \
  do {                                                              \
    if (!(condition)) [[unlikely]]                                  \
      ::kva::check_failed(__FILE__, __LINE__, #condition, message); \
  } while (false)
