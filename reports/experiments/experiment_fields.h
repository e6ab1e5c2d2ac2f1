// Fields of a configuration under all their names.
#pragma once

#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "reports/experiments/experiment_config.h"
#include "runtime/io/config_tree.h"

namespace kva {

std::span<const ExperimentField> dataset_fields();
std::span<const ExperimentField> passkey_fields();

ConfigPlace place_of(const ConfigNode& node);

// The path of a file that exists: from the current folder, else from the configuration's own. Throws
// InputError.
std::string existing_file(const ConfigNode& node);

// Whether --only names it, or nothing at all.
bool is_chosen(const std::vector<std::string>& only, std::string_view name);

// The members of a map by the names of a table. What it refers to outlives it.
class FieldReader {
 public:
  // Fields that `map` lacks are looked for in `common`, where there is one. Throws InputError where `map` is
  // no map.
  FieldReader(const ConfigNode& map, std::span<const ExperimentField> known,
              const ConfigNode* common = nullptr);

  // By the table's name or an alias; throws InputError where the map gives several of them.
  std::optional<ConfigNode> find(std::string_view name) const;
  std::optional<ConfigNode> find_own(std::string_view name) const;  // not in `common`

  // Throws InputError for a member that is none of the table's.
  void check_names() const;

 private:
  std::optional<ConfigNode> find_in(const ConfigNode& map, std::string_view name) const;

  const ConfigNode& map_;
  std::span<const ExperimentField> known_;
  const ConfigNode* common_;
};

}  // namespace kva
