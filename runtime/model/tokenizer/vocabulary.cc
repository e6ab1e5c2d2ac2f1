#include "runtime/model/tokenizer/vocabulary.h"

#include <fmt/format.h>

#include "runtime/error.h"

namespace kva::tok {

void Vocabulary::reserve(std::size_t tokens) {
  ids_.reserve(tokens);
  texts_.reserve(tokens);
}

void Vocabulary::add(const std::string& text, int64_t id, const std::string& where) {
  if (id < 0 || id > kMaxTokenId)
    throw InputError(fmt::format("{}: expected token ids from 0 to {}, found {}", where, kMaxTokenId, id));
  const auto index = static_cast<std::size_t>(id);
  const auto [entry, is_new] = ids_.try_emplace(text, static_cast<int32_t>(id));
  if (!is_new) {
    if (entry->second == id) return;
    throw InputError(fmt::format("{}: expected one id for each token, found {} and {} for one text", where,
                                 entry->second, id));
  }
  if (index >= texts_.size()) texts_.resize(index + 1, nullptr);
  if (texts_[index] != nullptr)
    throw InputError(fmt::format("{}: expected one token for each id, found two with id {}", where, id));
  texts_[index] = &entry->first;
}

std::optional<int32_t> Vocabulary::find(std::string_view text) const {
  const auto entry = ids_.find(text);
  if (entry == ids_.end()) return std::nullopt;
  return entry->second;
}

std::string_view Vocabulary::text(int32_t id) const {
  if (id < 0 || id >= size()) return {};
  const std::string* found = texts_[static_cast<std::size_t>(id)];
  return found == nullptr ? std::string_view() : std::string_view(*found);
}

}  // namespace kva::tok
