// Any bytes as a recipe: refused with an InputError of one line, or spelled canonically and resolved for a
// model.
#include <cstdint>
#include <cstdlib>
#include <string>
#include <string_view>

#include "compressors/recipe.h"
#include "runtime/error.h"

namespace {

void require(bool condition) {
  if (!condition) std::abort();
}

template <typename Call>
void refused_in_one_line(Call call) {
  try {
    call();
  } catch (const kva::InputError& error) {
    const std::string_view message = error.what();
    require(!message.empty() && message.find('\n') == std::string_view::npos && message.size() < 4000);
  }
}

void use(const kva::Recipe& recipe) {
  const std::string text = recipe.text();
  const kva::Recipe again = kva::Recipe::parse(text);
  require(again.text() == text && again.key_basis() == recipe.key_basis());
  const kva::RecipeCells cells = recipe.resolve(30, 3);
  const kva::RecipeCells same = again.resolve(30, 3);
  for (int layer = 0; layer < 30; ++layer) {
    for (int head = 0; head < 3; ++head) {
      for (const kva::Side side : {kva::Side::kKey, kva::Side::kValue}) {
        const int index = cells.statement(layer, head, side);
        require(index >= 0 && index < static_cast<int>(recipe.statements().size()));
        require(same.statement(layer, head, side) == index);
      }
    }
  }
}

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, std::size_t size) {
  const std::string text(reinterpret_cast<const char*>(data), size);  // so that a read past the end is seen
  refused_in_one_line([&] { use(kva::Recipe::parse(text)); });
  return 0;
}
