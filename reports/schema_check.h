// Checks a JSON document against a JSON Schema: the part of draft 2020-12 that reports/report.schema.json
// uses
// ($ref into $defs, type, const, enum, minimum, maximum, lengths, properties, required, additionalProperties,
// items, if/then/else). A keyword beyond these is a bug and aborts, so that none is silently ignored.
#pragma once

#include <nlohmann/json_fwd.hpp>
#include <string>

namespace kva {

// Throws InputError "<source>: similarity[3].mean: expected a number, found "x"" at the first disagreement.
void check_schema(const nlohmann::ordered_json& document, const nlohmann::ordered_json& schema,
                  const std::string& source);

}  // namespace kva
