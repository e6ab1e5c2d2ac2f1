#include "runtime/model/tokenizer/bpe.h"

#include <queue>

#include "runtime/io/utf8.h"
#include "runtime/model/tokenizer/byte_alphabet.h"

namespace kva::tok {
namespace {

// Longer words are rare, and hardly ever repeat.
constexpr std::size_t kMaxCachedBytes = 256;

struct Candidate {
  int32_t rank;
  int32_t position;
  int32_t id;
  // The queue's top is the earliest merge, and of these the leftmost.
  bool operator<(const Candidate& other) const {
    return rank != other.rank ? rank > other.rank : position > other.position;
  }
};

}  // namespace

// A doubly linked list of the word's tokens, by index; a merged-away token is dead.
struct Bpe::Symbols {
  struct Symbol {
    int32_t id;
    int32_t previous;
    int32_t next;
    bool alive;
  };
  std::vector<Symbol> list;
  bool after_unknown = false;

  void add(int32_t id) {
    const auto index = static_cast<int32_t>(list.size());
    if (index > 0) list.back().next = index;
    list.push_back({id, index - 1, -1, true});
  }
  Symbol& operator[](int32_t index) { return list[static_cast<std::size_t>(index)]; }
};

const Bpe::Merge* Bpe::find_merge(int32_t left, int32_t right) const {
  const auto found = merges_.find(pair_key(left, right));
  return found == merges_.end() ? nullptr : &found->second;
}

void Bpe::add_character(std::string_view character, Symbols& symbols) const {
  if (const auto id = vocabulary_.find(character)) {
    symbols.add(*id);
    symbols.after_unknown = false;
    return;
  }
  if (options_.byte_fallback && add_bytes(character, symbols)) return;
  if (!unknown_id_ || (options_.fuse_unknown && symbols.after_unknown)) return;
  symbols.add(*unknown_id_);
  symbols.after_unknown = true;
}

bool Bpe::add_bytes(std::string_view character, Symbols& symbols) const {
  for (const char byte : character)
    if (byte_ids_[static_cast<uint8_t>(byte)] < 0) return false;
  for (const char byte : character) symbols.add(byte_ids_[static_cast<uint8_t>(byte)]);
  symbols.after_unknown = false;
  return true;
}

void Bpe::start_symbols(std::string_view word, Symbols& symbols) const {
  symbols.list.reserve(word.size());
  std::string character;
  while (!word.empty()) {
    std::size_t bytes = 1;
    if (options_.byte_level) {
      character.clear();
      append_utf8(byte_alphabet().code_points[static_cast<uint8_t>(word[0])], character);
      add_character(character, symbols);
    } else {
      bytes = first_code_point(word).bytes;
      add_character(word.substr(0, bytes), symbols);
    }
    word.remove_prefix(bytes);
  }
}

void Bpe::merge_symbols(Symbols& symbols) const {
  std::priority_queue<Candidate> queue;
  const auto offer = [&](int32_t left) {
    const int32_t right = symbols[left].next;
    if (right < 0) return;
    if (const Merge* merge = find_merge(symbols[left].id, symbols[right].id))
      queue.push({merge->rank, left, merge->id});
  };
  for (std::size_t i = 0; i < symbols.list.size(); ++i) offer(static_cast<int32_t>(i));
  while (!queue.empty()) {
    const Candidate top = queue.top();
    queue.pop();
    auto& left = symbols[top.position];
    if (!left.alive || left.next < 0) continue;
    auto& right = symbols[left.next];
    // The pair may have changed since it was offered.
    const Merge* merge = find_merge(left.id, right.id);
    if (merge == nullptr || merge->id != top.id) continue;
    left.id = top.id;
    right.alive = false;
    left.next = right.next;
    if (left.next >= 0) symbols[left.next].previous = top.position;
    if (left.previous >= 0) offer(left.previous);
    offer(top.position);
  }
}

void Bpe::encode(std::string_view word, std::vector<int32_t>& ids) const {
  if (options_.ignore_merges) {
    const auto whole =
        options_.byte_level ? vocabulary_.find(byte_alphabet().to_text(word)) : vocabulary_.find(word);
    if (whole) {
      ids.push_back(*whole);
      return;
    }
  }
  Symbols symbols;
  start_symbols(word, symbols);
  merge_symbols(symbols);
  for (const auto& symbol : symbols.list)
    if (symbol.alive) ids.push_back(symbol.id);
}

void WordCache::encode(std::string_view word, std::vector<int32_t>& ids) {
  if (word.size() > kMaxCachedBytes) {
    bpe_.encode(word, ids);
    return;
  }
  auto found = words_.find(word);
  if (found == words_.end()) {
    const std::size_t begin = stored_.size();
    bpe_.encode(word, stored_);
    found = words_.emplace(std::string(word), Range{begin, stored_.size() - begin}).first;
  }
  const auto first = stored_.begin() + static_cast<std::ptrdiff_t>(found->second.begin);
  ids.insert(ids.end(), first, first + static_cast<std::ptrdiff_t>(found->second.count));
}

}  // namespace kva::tok
