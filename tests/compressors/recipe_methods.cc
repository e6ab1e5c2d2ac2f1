#include "tests/compressors/recipe_methods.h"

#include <vector>

namespace kva {
namespace {

std::string check_same(const Arguments& arguments, const StepPlace&) {
  return arguments.given("how") && arguments.given("near") ? "expected exact or near, found both" : "";
}

std::vector<MethodInfo> make_methods() {
  std::vector<MethodInfo> made(methods().begin(), methods().end());
  using enum ParameterKind;
  made.push_back(
      {.name = "pair",
       .aliases = {{"Halves", "50%"}},
       .kind = MethodKind::kStructure,
       .parameters = {
           {.name = "start",
            .aliases = {"merge_start_layer"},
            .kind = kCountOrShare,
            .fallback = "0.5",
            .lower = 0,
            .upper = 1000},
           {.name = "t", .kind = kNumber, .fallback = "0.6", .lower = 0, .upper = 1},
           {.name = "keep", .kind = kNumber, .lower = 0, .upper = 1, .above_lower = true},
           {.name = "rank", .kind = kCountOrShare, .lower = 0, .upper = 64, .above_lower = true}}});
  made.push_back({.name = "same",
                  .kind = MethodKind::kStructure,
                  .parameters = {{.name = "how", .kind = kWord, .words = {{"exact"}, {"close", {"approx"}}}},
                                 {.name = "near", .kind = kNumber, .lower = -1, .upper = 1}},
                  .check = check_same});
  made.push_back(
      {.name = "fold",
       .kind = MethodKind::kStructure,
       .sides = Sides::kValues,
       .parameters = {{.name = "by", .kind = kWord, .fallback = "near", .words = {{"near"}, {"far"}}}}});
  made.push_back({.name = "plainly", .kind = MethodKind::kSetting});
  return made;
}

}  // namespace

std::span<const MethodInfo> recipe_test_methods() {
  static const std::vector<MethodInfo> list = make_methods();
  return list;
}

}  // namespace kva
