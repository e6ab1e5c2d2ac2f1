#include "kernels/check.h"

#include <cstdio>
#include <cstdlib>

namespace kva {

void check_failed(const char* file, int line, const char* condition, const char* message) {
  std::fprintf(stderr, "kvanalyze: internal error at %s:%d: %s (%s)\n", file, line, message, condition);
  std::fputs("This is a bug in kvanalyze; please report it with the command line.\n", stderr);
  std::fflush(nullptr);
  std::_Exit(2);
}

}  // namespace kva
