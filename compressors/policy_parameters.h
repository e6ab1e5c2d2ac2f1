// Parameters that eviction strategies share, and how a policy reads them.
#pragma once

#include <string>
#include <string_view>
#include <vector>

#include "compressors/method.h"
#include "compressors/token_policy.h"

namespace kva {

// Up to 1 it is a share, over 1 a count of tokens.
Extent extent_of(const Arguments& arguments, std::string_view name);

// keep, sinks, recent and scope, where the method has them.
RankedOptions ranked_options(const Arguments& arguments);

// A count of tokens or a share of all tokens seen so far; not 0.
ParameterInfo tokens_parameter(std::string_view name, std::string_view fallback, std::string_view help);
// The same, 0 included.
ParameterInfo optional_tokens_parameter(std::string_view name, std::string_view fallback,
                                        std::string_view help);
ParameterInfo sinks_parameter(std::string_view fallback);
ParameterInfo scope_parameter();
// keep, sinks, recent, scope.
std::vector<ParameterInfo> ranked_parameters(std::string_view keep_fallback);
ParameterInfo weight_parameter(std::string_view name, std::string_view fallback, std::string_view help);
ParameterInfo share_parameter(std::string_view name, std::string_view fallback, std::string_view help);

// For MethodInfo::check: what refuse_dropping() says.
std::string check_eviction(const Arguments& arguments, const StepPlace& place);

}  // namespace kva
