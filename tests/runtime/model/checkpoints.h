// The small random checkpoints of every family (scripts/make_golden.py), as parameters of tests.
#pragma once

#include <gtest/gtest.h>

#include <algorithm>
#include <filesystem>
#include <string>
#include <vector>

#include "tests/fixtures_folder.h"

namespace kva {

inline std::string checkpoint_folder(const std::string& name) {
  return fixtures_folder() + "/models/" + name;
}

inline std::vector<std::string> checkpoints() {
  std::vector<std::string> names;
  for (const auto& entry : std::filesystem::directory_iterator(checkpoint_folder("")))
    names.push_back(entry.path().filename().string());
  std::sort(names.begin(), names.end());
  return names;
}

// As GoogleTest wants a parameter's name.
inline std::string checkpoint_name(const testing::TestParamInfo<std::string>& checkpoint) {
  std::string name = checkpoint.param;
  std::replace(name.begin(), name.end(), '-', '_');
  return name;
}

}  // namespace kva
