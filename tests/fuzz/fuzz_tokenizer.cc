// Any bytes as a tokenizer.json: it is refused with an InputError, or encodes and decodes without harm.
#include <cstdint>
#include <string_view>

#include "runtime/error.h"
#include "runtime/model/tokenizer.h"

namespace {

constexpr std::string_view kText =
    "Hello  world, it's 3.14!\n\n<s>caf\u00e9 \u2581\u4f60\u597d \U0001F600 \xFF</s> [MASK] x";

void use(const kva::Tokenizer& tokenizer) {
  const auto ids = tokenizer.encode(kText);
  (void)tokenizer.decode(ids, true);
  kva::TextStream stream(tokenizer, false);
  for (const int32_t id : ids) (void)stream.push(id);
  (void)stream.finish();
  (void)tokenizer.encode(kText, {.add_special = false, .parse_special = false});
}

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, std::size_t size) {
  try {
    use(kva::Tokenizer::parse({reinterpret_cast<const char*>(data), size}, "fuzz"));
  } catch (const kva::InputError&) {
    // The one way to refuse a file.
  }
  return 0;
}
