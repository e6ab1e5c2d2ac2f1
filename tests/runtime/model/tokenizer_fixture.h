// What the tokenizer's tests share: folders to write into, fixtures, the messages of errors.
#pragma once

#include <gtest/gtest.h>

#include <cstdint>
#include <cstdlib>
#include <filesystem>
#include <fstream>
#include <string>
#include <string_view>
#include <vector>

#include "runtime/io/json.h"
#include "tests/error_of.h"

namespace kva {

inline const std::string kTokenizerFixtures = KVA_FIXTURES "/tokenizers";

// A folder of its own, removed at the end.
class TempFolder {
 public:
  TempFolder() : path_(::testing::TempDir() + "kva_tokenizer_XXXXXX") {
    if (mkdtemp(path_.data()) == nullptr) std::abort();
  }
  TempFolder(const TempFolder&) = delete;
  TempFolder& operator=(const TempFolder&) = delete;
  ~TempFolder() { std::filesystem::remove_all(path_); }

  TempFolder& put(const std::string& name, std::string_view text) {
    std::ofstream(path_ + "/" + name, std::ios::binary) << text;
    return *this;
  }
  TempFolder& link(const std::string& name, const std::string& target) {
    std::filesystem::create_symlink(std::filesystem::absolute(target), path_ + "/" + name);
    return *this;
  }
  const std::string& path() const { return path_; }

 private:
  std::string path_;
};

inline std::vector<int32_t> ids_of(const JsonNode& array) {
  std::vector<int32_t> ids;
  for (int64_t i = 0; i < array.size(); ++i)
    ids.push_back(static_cast<int32_t>(array.at(i).as_int(0, INT32_MAX)));
  return ids;
}

// FNV-1a over the ids as little-endian 32-bit numbers, as scripts/check_tokenizer.py prints it.
inline std::string ids_hash(const std::vector<int32_t>& ids) {
  uint64_t value = 0xCBF29CE484222325u;
  for (const int32_t id : ids)
    for (int shift = 0; shift < 32; shift += 8)
      value = (value ^ ((static_cast<uint32_t>(id) >> shift) & 0xFFu)) * 0x100000001B3u;
  char text[17];
  std::snprintf(text, sizeof text, "%016llx", static_cast<unsigned long long>(value));
  return text;
}

}  // namespace kva
