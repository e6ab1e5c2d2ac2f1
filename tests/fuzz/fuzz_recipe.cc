// Any bytes as a recipe: refused with an InputError of one line, or spelled canonically and resolved for a
// model.
#include <cstdint>
#include <cstdlib>
#include <optional>
#include <string>
#include <string_view>

#include "compressors/recipe.h"
#include "runtime/error.h"

namespace {

void require(bool condition) {
  if (!condition) std::abort();
}

void require_one_line(std::string_view message) {
  require(!message.empty() && message.find('\n') == std::string_view::npos && message.size() < 4000);
}

void resolve_both(const kva::Recipe& recipe, const kva::Recipe& again) {
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

std::optional<kva::Recipe> parse(std::string_view text) {
  try {
    return kva::Recipe::parse(text);
  } catch (const kva::InputError& error) {
    require_one_line(error.what());
    return std::nullopt;
  }
}

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, std::size_t size) {
  const std::string text(reinterpret_cast<const char*>(data), size);  // so that a read past the end is seen
  const auto recipe = parse(text);
  if (!recipe) return 0;
  const auto again = parse(recipe->text());
  require(again && again->text() == recipe->text() && again->key_basis() == recipe->key_basis());
  try {
    resolve_both(*recipe, *again);
  } catch (const kva::InputError& error) {
    require_one_line(error.what());
  }
  return 0;
}
