// The recipe: which method works on which cells of the cache, and when. A cell is one side of one KV head of
// one layer.
//
//   recipe    := statement (';' statement)*      '#' comments to the end of the line; case does not matter
//   statement := 'keys' '(' basis ')'           once; keys(rotated) where it is not given
//              | [where ':'] pipeline           without `where`, or after `rest:`: all cells nobody else
//              names
//   basis     := rotated | plain [',' cache-relative] | page-relative
//   where     := selector ('&' selector)*       layers(0-1,28-29)  heads(0,2-3)  side(k)  side(v)
//   pipeline  := step ('|' step)*
//   step      := method ['(' argument (',' argument)* ')'] ['@' trigger]
//   argument  := value | parameter '=' value    values without a name fill the parameters in order
//   trigger   := seal | prefill | every=N | tokens>N
//
// Layers and heads are counted from 0, from the end where negative; a-b includes both.
#pragma once

#include <cstddef>
#include <cstdint>
#include <span>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "compressors/method.h"
#include "compressors/methods.h"

namespace kva {

struct Trigger {
  enum class Kind {
    kSeal,     // at the end of the step that filled a page
    kPrefill,  // once, after the prompt
    kEvery,    // after each `tokens` tokens
    kTokens,   // once a sequence is longer than `tokens`
  };
  Kind kind = Kind::kSeal;
  int64_t tokens = 0;
  friend bool operator==(const Trigger&, const Trigger&) = default;
};

struct RecipeStep {
  const MethodInfo* method = nullptr;
  Arguments arguments;
  Trigger trigger;
  bool triggered = false;    // the recipe says when, be it @seal
  std::string text() const;  // "quant(k=4)@prefill"
};

// Both ends included; negative counts from the end.
struct IndexRange {
  int first = 0;
  int last = 0;
};

// The cells that a statement names. No ranges: all layers, all heads.
struct CellSelector {
  std::vector<IndexRange> layers;
  std::vector<IndexRange> heads;
  Sides sides = Sides::kBoth;
  std::string text() const;  // "layers(0-1,-1)&side(k)"; empty where it names all cells
};

struct Statement {
  bool rest = false;     // for the cells that no other statement names; `where` is empty then
  bool implied = false;  // not written: the dense(f16) of cells that the recipe leaves out
  CellSelector where;
  std::vector<RecipeStep> pipeline;  // at least one
  std::string place;                 // of its first character, "column 12", for errors
  std::string pipeline_text() const;
};

// Which statement each cell of a model belongs to.
class RecipeCells {
 public:
  int layers() const { return layers_; }
  int kv_heads() const { return kv_heads_; }
  // Index into Recipe::statements().
  int statement(int layer, int kv_head, Side side) const;

 private:
  friend class Recipe;
  RecipeCells(int layers, int kv_heads);
  std::size_t cell(int layer, int kv_head, Side side) const;

  int layers_;
  int kv_heads_;
  std::vector<int> statements_;  // [layer, kv_head, side]
};

// How keys are kept, and which positions they are given when they are read: keys(...).
struct KeyStatement {
  KeyBasis basis = KeyBasis::kRotated;
  PositionMode positions = PositionMode::kOriginal;
};
inline constexpr std::string_view kCacheRelativeName = "cache-relative";

// Immutable. Refers to the methods it was parsed with.
class Recipe {
 public:
  static constexpr std::size_t kMaxBytes = 64 << 10;
  static constexpr std::size_t kMaxStatements = 1024;
  static constexpr std::size_t kMaxSteps = 16;     // of a pipeline
  static constexpr std::size_t kMaxRanges = 4096;  // of a selector
  static constexpr int64_t kMaxIndex = 1 << 20;    // of a layer or head
  static constexpr int64_t kMaxTokens = 1 << 30;   // of a trigger

  // Throws InputError: one line that says where, what was expected, what was found and which known name is
  // near.
  static Recipe parse(std::string_view text, std::span<const MethodInfo> known = methods());

  // The canonical spelling: parse() reads it as the same recipe. Arguments appear where they were given.
  std::string text() const;

  KeyBasis key_basis() const { return keys_.basis; }
  PositionMode positions() const { return keys_.positions; }

  // As written; exactly one is for the rest, implied where none was written.
  std::span<const Statement> statements() const { return statements_; }

  // Throws InputError for a layer or head that the model does not have and for a cell that two statements
  // name.
  RecipeCells resolve(int layers, int kv_heads) const;

 private:
  Recipe(const KeyStatement& keys, std::vector<Statement> statements)
      : keys_(keys), statements_(std::move(statements)) {}

  void claim_cells(int index, RecipeCells& cells) const;

  KeyStatement keys_;
  std::vector<Statement> statements_;
};

}  // namespace kva
