// How recipes of one report are related: which are one method at other numbers, and which drops what another
// one merges.
#pragma once

#include <optional>
#include <string>

namespace kva {

// Rows of one family are one method's curve: the recipe with "#" for every number, less words, flags and
// zeros that say what is so by default; widths of keys and of values count as bits. quant(k=8,v=4,group=page)
// and quant(bits=4) are both quant(bits=#); with outliers=0.01 it is another method,
// quant(bits=#,outliers=#). `recipe` parses (compressors/recipe.h).
std::string recipe_family(const std::string& recipe);

// The recipe, in canonical spelling, that evicts where this one merges, else the same: what merging is
// compared with. Nothing where it merges nowhere.
std::optional<std::string> eviction_base(const std::string& recipe);

}  // namespace kva
