// An option that is a whole number between two bounds, shown as N.
#pragma once

#include <CLI/CLI.hpp>
#include <cstdint>
#include <string>

namespace kva::cli {

template <typename Int>
CLI::Option* add_count(CLI::App& app, const std::string& names, Int& value, int64_t min, int64_t max,
                       const std::string& help) {
  return app.add_option(names, value, help)
      ->check(CLI::Range(static_cast<Int>(min), static_cast<Int>(max)).description(""))
      ->type_name("N")
      ->capture_default_str();
}

}  // namespace kva::cli
