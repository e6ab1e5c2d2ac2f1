#include <array>

#include "kernels/check.h"
#include "runtime/model/family.h"

namespace kva {

// Every family there is.
std::span<const Family* const> families() {
  static const std::array<const Family*, 3> list = {
      &opt_family(),
      &gpt2_family(),
      &llama_family(),
  };
  return list;
}

const Family& family_named(std::string_view name) {
  for (const Family* family : families())
    if (family->name == name) return *family;
  KVA_CHECK(false, "unknown family");
}

}  // namespace kva
