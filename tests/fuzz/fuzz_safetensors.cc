#include <cstdint>
#include <vector>

#include "runtime/error.h"
#include "runtime/io/safetensors.h"

// Whatever the bytes say, the reader refuses them with InputError or gives views that can be read to their
// end.
extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, std::size_t size) {
  const std::vector<uint8_t> exact(data, data + size);  // so that a read past the end is seen
  try {
    const auto archive = kva::TensorArchive::from_memory(std::as_bytes(std::span(exact)), "fuzz");
    archive.hash();
    for (const std::string& name : archive.names()) {
      try {
        kva::check_finite(*archive.find(name));
      } catch (const kva::InputError&) {
      }
    }
  } catch (const kva::InputError&) {
  }
  return 0;
}
