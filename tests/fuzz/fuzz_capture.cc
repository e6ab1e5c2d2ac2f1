// A capture's manifest, as a stranger may write it.
#include <cstddef>
#include <cstdint>
#include <string_view>

#include "runtime/error.h"
#include "runtime/kv/capture_manifest.h"

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, std::size_t size) {
  try {
    (void)kva::parse_manifest({reinterpret_cast<const char*>(data), size}, "fuzz");
  } catch (const kva::InputError&) {
  }
  return 0;
}
