// The tokens of a model: text to id and back.
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <string_view>
#include <unordered_map>
#include <vector>

namespace kva::tok {

// Far above every published vocabulary; bounds what a hostile id can allocate.
inline constexpr int64_t kMaxTokenId = (int64_t{1} << 21) - 1;

struct TextHash {
  using is_transparent = void;
  std::size_t operator()(std::string_view text) const { return std::hash<std::string_view>{}(text); }
};

class Vocabulary {
 public:
  Vocabulary() = default;
  // texts_ points into ids_, whose nodes a move keeps and a copy does not.
  Vocabulary(Vocabulary&&) = default;
  Vocabulary& operator=(Vocabulary&&) = default;
  Vocabulary(const Vocabulary&) = delete;
  Vocabulary& operator=(const Vocabulary&) = delete;

  void reserve(std::size_t tokens);
  // id within [0, kMaxTokenId]. The same pair may come again; `where` names the file in the InputError for a
  // text with two ids or an id with two texts.
  void add(const std::string& text, int64_t id, const std::string& where);

  std::optional<int32_t> find(std::string_view text) const;
  // The text as the file spells it; empty for an id without a token.
  std::string_view text(int32_t id) const;
  // One over the largest id.
  int32_t size() const { return static_cast<int32_t>(texts_.size()); }

 private:
  std::unordered_map<std::string, int32_t, TextHash, std::equal_to<>> ids_;
  std::vector<const std::string*> texts_;
};

}  // namespace kva::tok
