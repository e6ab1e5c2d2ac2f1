// Configurations that come with the program.
#pragma once

#include <string_view>
#include <vector>

namespace kva {

// By name, without ".yaml".
std::vector<std::string_view> ready_configs();

// The text of one of them. Throws InputError for a name that is none.
std::string_view ready_config(std::string_view name);

}  // namespace kva
