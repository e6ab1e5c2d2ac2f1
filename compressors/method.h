// What a recipe, its errors and `kvanalyze methods` know about a method: one description, plain data, made by
// the method's own file in compressors/methods/ and collected in compressors/methods.h.
#pragma once

#include <cstddef>
#include <cstdint>
#include <memory>
#include <string>
#include <string_view>
#include <variant>
#include <vector>

#include "runtime/kv/kv_cache.h"

namespace kva {

class Arguments;
class Step;  // compressors/step.h

enum class ParameterKind {
  kInteger,       // a whole number
  kNumber,        // any finite number; 50% is 0.5
  kCountOrShare,  // a whole number counts, anything with a point or a % sign is a share of the whole
  kWord,          // one of `words`
  kFlag,          // true or false
};

// A word that a parameter takes.
struct WordInfo {
  std::string_view name;
  std::vector<std::string_view> aliases = {};
  std::string_view meaning = {};
};

// All text is ASCII in lower case where a recipe can say it, and lives as long as the program.
struct ParameterInfo {
  std::string_view name;
  std::vector<std::string_view> aliases = {};
  ParameterKind kind = ParameterKind::kNumber;
  std::string_view fallback = {};  // the default as a recipe would write it; empty: unset
  // Bounds of integers, numbers and counts, both inclusive. A share lies in [0, 1], or in (0, 1] where
  // above_lower says that the lower bound itself is refused.
  double lower = 0;
  double upper = 0;
  bool above_lower = false;
  std::vector<int64_t> values = {};  // of an integer that takes only these
  std::vector<WordInfo> words = {};  // of a word; an integer may take words too (group=page)
  std::string_view unit = {};        // of a number: "bits", "tokens"; empty where there is none
  std::string_view help = {};        // one line
};

struct Paper {
  std::string_view title;
  std::string_view arxiv;  // "2402.02750"
};

// A name that stands, without arguments of its own, for the method with its first parameter set: Baseline is
// dense(f16).
struct MethodAlias {
  std::string_view name;
  std::string_view argument;
};

enum class MethodKind {
  kFormat,     // numbers in another type or code
  kTransform,  // coordinates in which fewer numbers or bits do
  kStructure,  // pages or tokens shared, merged or dropped
  kSetting,    // bounds or budgets of the rest
};

enum class Sides { kBoth, kKeys, kValues };

constexpr bool covers(Sides sides, Side side) {
  return sides == Sides::kBoth || (sides == Sides::kKeys) == (side == Side::kKey);
}

std::string_view parameter_kind_name(
    ParameterKind kind);                             // "integer", "number", "count or share", "word", "flag"
std::string_view method_kind_name(MethodKind kind);  // "format", "transform", "structure", "setting"
std::string_view sides_name(Sides sides);            // "keys and values", "keys", "values"

// Where a step stands in a recipe.
struct StepPlace {
  KeyBasis key_basis = KeyBasis::kRotated;  // of the recipe
  Sides sides = Sides::kBoth;               // that its statement names
};

struct MethodInfo {
  std::string_view name;  // letters, digits and '_'
  std::vector<MethodAlias> aliases = {};
  std::string_view meaning = {};  // one line
  MethodKind kind = MethodKind::kFormat;
  Sides sides = Sides::kBoth;  // that it acts on; a statement for the other side alone cannot name it
  std::vector<Paper> papers = {};
  std::vector<ParameterInfo> parameters = {};  // in the order that positional arguments fill
  // What no parameter alone can tell: an empty text, or what is wrong and what to write instead. Called while
  // a recipe is parsed, so it may not throw.
  std::string (*check)(const Arguments& arguments, const StepPlace& place) = nullptr;
  // The step that does it; throws InputError.
  std::unique_ptr<Step> (*make)(const Arguments& arguments) = nullptr;
};

// Unset, an integer (or count), a number (or share), a flag, or the name of a word in its ParameterInfo.
using ArgumentValue = std::variant<std::monostate, int64_t, double, bool, std::string_view>;

// The arguments of one step: every parameter of its method, range-checked, defaults filled in. Asking for a
// parameter that the method does not have, that has no value, or as another kind is a bug of the caller.
// Refers to the method, which outlives it.
class Arguments {
 public:
  explicit Arguments(const MethodInfo& method);  // all defaults

  const MethodInfo& method() const { return *method_; }

  // Whether the recipe gave it, even as the value that it has by default.
  bool given(std::string_view name) const;
  bool given(std::size_t parameter) const { return given_[parameter]; }
  // Whether it has a value, given or by default.
  bool has(std::string_view name) const;

  int64_t integer(std::string_view name) const;        // of an integer, or a count
  double number(std::string_view name) const;          // of a number, a count or a share
  bool is_count(std::string_view name) const;          // a count rather than a share
  bool is_word(std::string_view name) const;           // group=page rather than group=32
  std::string_view word(std::string_view name) const;  // the word's name, whichever alias was written
  bool flag(std::string_view name) const;

  // Sets a parameter by its place in the method's list to a value that read_value() made.
  void give(std::size_t parameter, ArgumentValue value);

  // As a recipe gives them, in the method's order: "(k=4,v=4,axes=kivi)", "(f16)", or nothing where nothing
  // was given. A word of the first parameter stands without its name.
  std::string text() const;

 private:
  const ArgumentValue& value(std::string_view name) const;

  const MethodInfo* method_;
  std::vector<ArgumentValue> values_;
  std::vector<bool> given_;
};

}  // namespace kva
