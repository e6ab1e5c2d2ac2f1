// Recursive descent over RecipeScanner; the grammar stands in recipe.h and does not nest.

#include <fmt/format.h>

#include <algorithm>
#include <array>
#include <optional>

#include "compressors/argument_value.h"
#include "compressors/recipe.h"
#include "compressors/recipe_scanner.h"
#include "compressors/spelling.h"
#include "kernels/check.h"
#include "runtime/error.h"
#include "runtime/io/utf8.h"

namespace kva {
namespace {

constexpr std::array<std::string_view, 4> kSelectors = {"layers", "heads", "side", "rest"};
constexpr std::array<std::string_view, 4> kTriggers = {"seal", "prefill", "every", "tokens"};

std::string names_of(std::span<const std::string_view> names, std::string_view conjunction) {
  return listed(std::vector<std::string>(names.begin(), names.end()), conjunction);
}

class RecipeParser {
 public:
  RecipeParser(std::string_view text, std::span<const MethodInfo> known)
      : scanner_(text, Recipe::kMaxBytes), known_(known) {}

  void parse();
  KeyStatement keys() const { return keys_.value_or(KeyStatement()); }
  std::vector<Statement> take_statements() { return std::move(statements_); }

 private:
  void parse_statement();
  void parse_keys(std::size_t position);
  void parse_where(const std::string& first, Statement& statement);
  void parse_selector(const std::string& kind, std::size_t position, CellSelector& where);
  std::vector<IndexRange> parse_ranges(const std::string& kind);
  int parse_index(const std::string& kind);
  void parse_pipeline(const std::string& first, std::size_t position, Statement& statement);
  void parse_step(const std::string& name, std::size_t position, Statement& statement);
  void parse_arguments(Arguments& arguments);
  void parse_argument(std::size_t& positional, Arguments& arguments);
  std::size_t find_parameter(const MethodInfo& method, const std::string& name, std::size_t position) const;
  void give(std::size_t parameter, const std::string& value, std::size_t position, bool named,
            Arguments& arguments) const;
  Trigger parse_trigger();
  void add_rest();
  void run_checks() const;

  struct Written {  // a step whose check waits until the key basis is known
    std::size_t statement;
    std::size_t step;
    std::size_t position;
  };

  RecipeScanner scanner_;
  std::span<const MethodInfo> known_;
  std::optional<KeyStatement> keys_;
  std::vector<Statement> statements_;
  std::vector<Written> written_;
};

void RecipeParser::parse() {
  do {
    if (statements_.size() == Recipe::kMaxStatements)
      scanner_.fail(scanner_.position(),
                    fmt::format("expected at most {} statements, found more", Recipe::kMaxStatements));
    parse_statement();
  } while (scanner_.accept(';'));
  if (!scanner_.at_end()) scanner_.fail_expected("'|', '@', ';' or the end after a step");
  add_rest();
  run_checks();
}

void RecipeParser::parse_statement() {
  const std::size_t position = scanner_.position();
  const std::string first = scanner_.name("a statement such as quant(bits=4)");
  if (first == "keys") return parse_keys(position);
  Statement statement;
  statement.place = scanner_.place(position);
  if (std::ranges::find(kSelectors, first) != kSelectors.end()) {
    parse_where(first, statement);
    const std::size_t step = scanner_.position();
    parse_pipeline(scanner_.name("a method after ':'"), step, statement);
  } else {
    statement.rest = true;
    parse_pipeline(first, position, statement);
  }
  const auto rest = std::ranges::find(statements_, true, &Statement::rest);
  if (statement.rest && rest != statements_.end())
    scanner_.fail(position,
                  fmt::format("expected one statement for the cells that no other names, found a second "
                              "after {}; name layers, heads or a side before it",
                              rest->place));
  statements_.push_back(std::move(statement));
}

void RecipeParser::parse_keys(std::size_t position) {
  const std::string expected = "rotated, plain or page-relative";
  scanner_.expect('(', "after keys");
  const std::size_t word = scanner_.position();
  const std::string name = scanner_.value(expected);
  const auto basis = parse_key_basis(name);
  if (!basis)
    scanner_.fail(
        word,
        fmt::format("keys: expected {}, found {}{}", expected, quoted_for_error(name),
                    suggestion(name, std::array<std::string_view, 3>{"rotated", "plain", "page-relative"})));
  KeyStatement keys{.basis = *basis};
  if (scanner_.accept(',')) {
    const std::size_t mode = scanner_.position();
    const std::string found = scanner_.value(std::string(kCacheRelativeName));
    if (found != kCacheRelativeName)
      scanner_.fail(mode,
                    fmt::format("keys: expected {}, found {}{}", kCacheRelativeName, quoted_for_error(found),
                                suggestion(found, std::array{kCacheRelativeName})));
    if (*basis != KeyBasis::kPlain)
      scanner_.fail(word, fmt::format("keys: expected plain with {}, found {}", kCacheRelativeName, name));
    keys.positions = PositionMode::kCacheRelative;
  }
  scanner_.expect(')', "after the key basis");
  if (keys_) scanner_.fail(position, "keys: expected once in a recipe, found a second time");
  keys_ = keys;
}

void RecipeParser::parse_where(const std::string& first, Statement& statement) {
  if (first == "rest") {
    statement.rest = true;
    scanner_.expect(':', "after rest");
    return;
  }
  std::string kind = first;
  std::size_t position = scanner_.position();
  parse_selector(kind, position, statement.where);
  while (scanner_.accept('&')) {
    position = scanner_.position();
    kind = scanner_.name("layers(...), heads(...) or side(...) after '&'");
    parse_selector(kind, position, statement.where);
  }
  scanner_.expect(':', "after the cells that a statement names");
}

void RecipeParser::parse_selector(const std::string& kind, std::size_t position, CellSelector& where) {
  const std::span<const std::string_view> joined(kSelectors.data(), 3);
  if (std::ranges::find(joined, kind) == joined.end())
    scanner_.fail(position, fmt::format("expected layers(...), heads(...) or side(...), found {}{}",
                                        quoted_for_error(kind), suggestion(kind, joined)));
  const bool again = kind == "layers"  ? !where.layers.empty()
                     : kind == "heads" ? !where.heads.empty()
                                       : where.sides != Sides::kBoth;
  if (again)
    scanner_.fail(position, fmt::format("{}: expected once in a statement, found a second time", kind));
  scanner_.expect('(', "after " + kind);
  if (kind == "side") {
    const std::size_t word = scanner_.position();
    const std::string side = scanner_.value("k or v");
    if (side != "k" && side != "v")
      scanner_.fail(word, fmt::format("side: expected k or v, found {}", quoted_for_error(side)));
    where.sides = side == "k" ? Sides::kKeys : Sides::kValues;
  } else {
    (kind == "layers" ? where.layers : where.heads) = parse_ranges(kind);
  }
  scanner_.expect(')', fmt::format("to close {}(", kind));
}

std::vector<IndexRange> RecipeParser::parse_ranges(const std::string& kind) {
  std::vector<IndexRange> ranges;
  do {
    const std::size_t position = scanner_.position();
    if (ranges.size() == Recipe::kMaxRanges)
      scanner_.fail(position,
                    fmt::format("{}: expected at most {} ranges, found more", kind, Recipe::kMaxRanges));
    IndexRange range;
    range.first = range.last = parse_index(kind);
    if (scanner_.accept('-')) range.last = parse_index(kind);
    if ((range.first < 0) == (range.last < 0) && range.first > range.last)
      scanner_.fail(position,
                    fmt::format("{}: expected a rising range, found {}-{}", kind, range.first, range.last));
    ranges.push_back(range);
  } while (scanner_.accept(','));
  return ranges;
}

int RecipeParser::parse_index(const std::string& kind) {
  const bool negative = scanner_.accept('-');
  const std::size_t position = scanner_.position();
  const auto index =
      static_cast<int>(scanner_.whole_number(Recipe::kMaxIndex, kind == "layers" ? "a layer" : "a KV head"));
  if (negative && index == 0) scanner_.fail(position, fmt::format("{}: expected -1 or less, found -0", kind));
  return negative ? -index : index;
}

void RecipeParser::parse_pipeline(const std::string& first, std::size_t position, Statement& statement) {
  parse_step(first, position, statement);
  while (scanner_.accept('|')) {
    const std::size_t next = scanner_.position();
    if (statement.pipeline.size() == Recipe::kMaxSteps)
      scanner_.fail(next,
                    fmt::format("expected at most {} steps in a statement, found more", Recipe::kMaxSteps));
    parse_step(scanner_.name("a method after '|'"), next, statement);
  }
}

void RecipeParser::parse_step(const std::string& name, std::size_t position, Statement& statement) {
  std::vector<std::string_view> names;
  // The first name of a statement may be a selector with a slip in it.
  if (statement.rest && statement.pipeline.empty()) names = {"layers", "heads", "side", "rest", "keys"};
  std::string_view alias_argument;
  const MethodInfo* method = nullptr;
  for (const MethodInfo& known : known_) {
    names.push_back(known.name);
    if (known.name == name) method = &known;
    for (const MethodAlias& alias : known.aliases) {
      names.push_back(alias.name);
      if (lower_case(alias.name) != name) continue;
      method = &known;
      alias_argument = alias.argument;
    }
  }
  if (method == nullptr)
    scanner_.fail(position, fmt::format("expected a method, found {}{} (kvanalyze methods lists them)",
                                        quoted_for_error(name), suggestion(name, names)));
  RecipeStep step{method, Arguments(*method), {}};
  if (!alias_argument.empty()) {
    if (scanner_.next_is('('))
      scanner_.fail(scanner_.position(),
                    fmt::format("{} stands for {}({}): expected no arguments, found \"(\"", name,
                                method->name, alias_argument));
    give(0, std::string(alias_argument), position, false, step.arguments);
  } else if (scanner_.accept('(')) {
    parse_arguments(step.arguments);
  }
  step.triggered = scanner_.accept('@');
  if (step.triggered) step.trigger = parse_trigger();
  written_.push_back({statements_.size(), statement.pipeline.size(), position});
  statement.pipeline.push_back(std::move(step));
}

void RecipeParser::parse_arguments(Arguments& arguments) {
  std::size_t positional = 0;
  do {
    parse_argument(positional, arguments);
  } while (scanner_.accept(','));
  scanner_.expect(')', fmt::format("or ',' after an argument of {}", arguments.method().name));
}

// `positional` is the parameter that the next value without a name fills; none may follow a named one.
void RecipeParser::parse_argument(std::size_t& positional, Arguments& arguments) {
  constexpr std::size_t kNamedBefore = static_cast<std::size_t>(-1);
  const MethodInfo& method = arguments.method();
  const std::size_t position = scanner_.position();
  const std::string text = scanner_.value(fmt::format("an argument of {}", method.name));
  if (scanner_.accept('=')) {
    const std::size_t parameter = find_parameter(method, text, position);
    if (arguments.given(parameter))
      scanner_.fail(position, fmt::format("{}: expected {} once, found it a second time", method.name,
                                          method.parameters[parameter].name));
    positional = kNamedBefore;
    const std::size_t value_position = scanner_.position();
    const std::string value =
        scanner_.value(fmt::format("{} for {}", expected_values(method.parameters[parameter]), text));
    return give(parameter, value, value_position, true, arguments);
  }
  if (positional == kNamedBefore)
    scanner_.fail(position, fmt::format("{}: expected parameter=value after a named argument, found {}",
                                        method.name, quoted_for_error(text)));
  if (positional >= method.parameters.size())
    scanner_.fail(position, fmt::format("{}: expected at most {} arguments, found {} more", method.name,
                                        method.parameters.size(), quoted_for_error(text)));
  give(positional, text, position, false, arguments);
  ++positional;
}

std::size_t RecipeParser::find_parameter(const MethodInfo& method, const std::string& name,
                                         std::size_t position) const {
  std::vector<std::string_view> names, shown;
  for (std::size_t i = 0; i < method.parameters.size(); ++i) {
    const ParameterInfo& parameter = method.parameters[i];
    if (parameter.name == name || std::ranges::find(parameter.aliases, name) != parameter.aliases.end())
      return i;
    shown.push_back(parameter.name);
    names.push_back(parameter.name);
    names.insert(names.end(), parameter.aliases.begin(), parameter.aliases.end());
  }
  const std::string near = suggestion(name, names);
  if (shown.empty())
    scanner_.fail(position,
                  fmt::format("{}: expected no arguments, found {}", method.name, quoted_for_error(name)));
  scanner_.fail(position, fmt::format("{}: expected {}, found {}{}", method.name,
                                      near.empty() ? names_of(shown, "or") : "a parameter",
                                      quoted_for_error(name), near));
}

void RecipeParser::give(std::size_t parameter, const std::string& value, std::size_t position, bool named,
                        Arguments& arguments) const {
  const MethodInfo& method = arguments.method();
  const ParameterInfo& info = method.parameters[parameter];
  if (const auto read = read_value(info, value)) return arguments.give(parameter, *read);
  std::vector<std::string_view> words;
  for (const WordInfo& word : info.words) {
    words.push_back(word.name);
    words.insert(words.end(), word.aliases.begin(), word.aliases.end());
  }
  if (info.kind == ParameterKind::kFlag) words = {"true", "false"};
  std::string near = suggestion(value, words);
  // quant(rotate): a parameter's name where its value should be.
  if (!named && near.empty())
    for (const ParameterInfo& other : method.parameters)
      if (other.name == value)
        near = fmt::format("; a value for {} is given as {}={}", value, value,
                           other.kind == ParameterKind::kFlag ? "true" : "...");
  scanner_.fail(position, fmt::format("{}: {} expected {}, found {}{}", method.name, info.name,
                                      expected_values(info), quoted_for_error(value), near));
}

Trigger RecipeParser::parse_trigger() {
  const std::size_t position = scanner_.position();
  const std::string name = scanner_.name("seal, prefill, every=N or tokens>N after '@'");
  Trigger trigger;
  if (name == "prefill") {
    trigger.kind = Trigger::Kind::kPrefill;
  } else if (name == "every") {
    trigger.kind = Trigger::Kind::kEvery;
    scanner_.expect('=', "after @every, as in @every=64");
  } else if (name == "tokens") {
    trigger.kind = Trigger::Kind::kTokens;
    scanner_.expect('>', "after @tokens, as in @tokens>1024");
  } else if (name != "seal") {
    scanner_.fail(position, fmt::format("expected seal, prefill, every=N or tokens>N after '@', found {}{}",
                                        quoted_for_error(name), suggestion(name, kTriggers)));
  }
  if (name == "every" || name == "tokens") {
    const std::size_t number = scanner_.position();
    trigger.tokens = scanner_.whole_number(Recipe::kMaxTokens, "a number of tokens");
    if (trigger.tokens == 0 && name == "every")
      scanner_.fail(number, "@every: expected 1 token or more, found 0");
  }
  return trigger;
}

// A recipe says something of every cell.
void RecipeParser::add_rest() {
  if (std::ranges::find(statements_, true, &Statement::rest) != statements_.end()) return;
  const MethodInfo* dense = find_method("dense");
  KVA_CHECK(dense != nullptr, "the method of cells that a recipe leaves out exists");
  Statement statement;
  statement.rest = true;
  statement.implied = true;
  statement.place = "the cells that no statement names";
  statement.pipeline.push_back({dense, Arguments(*dense), {}});
  statements_.push_back(std::move(statement));
}

void RecipeParser::run_checks() const {
  for (const Written& at : written_) {
    const Statement& statement = statements_[at.statement];
    const RecipeStep& step = statement.pipeline[at.step];
    const Sides sides = statement.where.sides;
    if (sides != Sides::kBoth && step.method->sides != Sides::kBoth && sides != step.method->sides)
      scanner_.fail(at.position,
                    fmt::format("{}: expected a statement for {}, found one for {} alone", step.method->name,
                                sides_name(step.method->sides), sides_name(sides)));
    if (step.method->check == nullptr) continue;
    const std::string problem = step.method->check(step.arguments, {keys().basis, sides});
    if (!problem.empty()) scanner_.fail(at.position, fmt::format("{}: {}", step.method->name, problem));
  }
}

}  // namespace

Recipe Recipe::parse(std::string_view text, std::span<const MethodInfo> known) {
  RecipeParser parser(text, known);
  parser.parse();
  Recipe recipe(parser.keys(), parser.take_statements());
  // So that parse() takes every text that text() gives: names of parameters make it longer.
  if (const std::size_t bytes = recipe.text().size(); bytes > kMaxBytes)
    throw InputError(
        fmt::format("recipe: expected at most {} bytes with all names written, found {}", kMaxBytes, bytes));
  return recipe;
}

}  // namespace kva
