// Where tests/fixtures is: where the program was built, or, on a machine that it was carried to, where
// KVA_FIXTURES_AT says.
#pragma once

#include <cstdlib>
#include <string>

namespace kva {

inline std::string fixtures_folder() {
  const char* carried = std::getenv("KVA_FIXTURES_AT");
  return carried ? carried : KVA_FIXTURES;
}

}  // namespace kva
