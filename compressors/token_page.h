// Pages of a draft as methods see them that drop or merge tokens: keys and values side by side, where each
// token stands, how many it stands for and what attention it got.
//
// A table's keys and values lose the same tokens. Tables that share both sides already (layershare) lose them
// together, by the sum of their attention.
#pragma once

#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

#include "compressors/draft.h"
#include "compressors/method.h"
#include "compressors/step.h"

namespace kva {

struct TokenPage {
  // Streams of the draft; good until streams are added.
  DraftStream* k = nullptr;
  DraftStream* v = nullptr;
  std::vector<Cell> tables;  // their key cells
  std::vector<int32_t> positions;
  std::vector<double> counts;  // tokens that each stands for
  std::vector<double> mass;    // attention that each got so far

  int64_t tokens() const { return k->tokens; }
};

// What is wrong with a step that drops tokens standing here; empty: nothing. For MethodInfo::check.
std::string refuse_dropping(const StepPlace& place);

// Throws InputError where the statement has one side of a table only. For Step::begin().
void expect_both_sides(const StepContext& context, std::string_view method);

// The pages whose both sides no step has formatted yet. The step observes attention mass. Throws InputError,
// naming layer, head and side, for numbers or attention that are not finite: nothing can be ranked by them.
std::vector<TokenPage> token_pages(const StepContext& context, Draft& draft);

// The tokens that stay, ascending: those at positions below `sinks`, and those with most attention, ties to
// the earlier, until they are ceil(keep * tokens). 0 < keep <= 1.
std::vector<int64_t> survivors(const TokenPage& page, double keep, int64_t sinks);

// Reduces the page to rows k, v [kept.size(), width] of the tokens `kept`, ascending, which stand for
// `counts` tokens now.
void shrink(Draft& draft, const TokenPage& page, const std::vector<int64_t>& kept,
            const std::vector<double>& counts, std::vector<float> k, std::vector<float> v);

// Rows `kept` of rows.
std::vector<float> rows_of(const DraftStream& stream, const std::vector<int64_t>& kept);

// Parameters that evict and merge share: keep, then sinks and window.
ParameterInfo keep_parameter();
std::vector<ParameterInfo> untouched_parameters();

}  // namespace kva
