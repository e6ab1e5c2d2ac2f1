#include "tests/runtime/model/llama_spm.h"

#include <algorithm>
#include <cstdint>
#include <cstring>
#include <nlohmann/json.hpp>
#include <stdexcept>
#include <string_view>
#include <unordered_map>
#include <vector>

#include "runtime/io/file.h"

namespace kva {
namespace {

// Just enough of GGUF's metadata for this one file.
class GgufReader {
 public:
  explicit GgufReader(const std::string& path) : data_(read_text_file(path, 1 << 26)) {
    skip(4 + 4 + 8);  // magic, version, number of tensors
    const auto fields = number<uint64_t>();
    for (uint64_t i = 0; i < fields; ++i) {
      const std::string name(text());
      read_value(name, number<uint32_t>());
    }
  }

  std::vector<std::string> tokens;
  std::vector<float> scores;
  std::vector<int32_t> types;

 private:
  enum Type : uint32_t { kUint32 = 4, kInt32 = 5, kFloat32 = 6, kBool = 7, kText = 8, kArray = 9 };

  void read_value(const std::string& name, uint32_t type) {
    switch (type) {
      case kBool: skip(1); return;
      case kUint32:
      case kInt32:
      case kFloat32: skip(4); return;
      case kText: text(); return;
      case kArray: read_array(name); return;
      default: throw std::runtime_error("unexpected GGUF type");
    }
  }

  void read_array(const std::string& name) {
    const auto type = number<uint32_t>();
    const auto count = number<uint64_t>();
    for (uint64_t i = 0; i < count; ++i) {
      if (name == "tokenizer.ggml.tokens") {
        tokens.emplace_back(text());
      } else if (name == "tokenizer.ggml.scores") {
        scores.push_back(number<float>());
      } else if (name == "tokenizer.ggml.token_type") {
        types.push_back(number<int32_t>());
      } else {
        read_value("", type);
      }
    }
  }

  template <typename T>
  T number() {
    T value;
    std::memcpy(&value, take(sizeof(T)).data(), sizeof(T));
    return value;
  }
  std::string_view text() { return take(number<uint64_t>()); }
  void skip(std::size_t bytes) { take(bytes); }
  std::string_view take(std::size_t bytes) {
    if (bytes > data_.size() - at_) throw std::runtime_error("GGUF file cut short");
    at_ += bytes;
    return std::string_view(data_).substr(at_ - bytes, bytes);
  }

  std::string data_;
  std::size_t at_ = 0;
};

struct Merge {
  int32_t left;
  int32_t right;
  int32_t piece;
};

// Sentencepiece keeps no merges: every way to cut a piece into two pieces is one, ranked by the piece's
// score.
std::vector<Merge> merges_of(const GgufReader& gguf, const std::unordered_map<std::string, int32_t>& ids) {
  constexpr int32_t kNormal = 1;
  std::vector<Merge> merges;
  for (std::size_t i = 0; i < gguf.tokens.size(); ++i) {
    if (gguf.types[i] != kNormal) continue;
    const std::string& piece = gguf.tokens[i];
    const auto first = static_cast<std::ptrdiff_t>(merges.size());
    for (std::size_t cut = 1; cut < piece.size(); ++cut) {
      const auto left = ids.find(piece.substr(0, cut));
      const auto right = ids.find(piece.substr(cut));
      if (left != ids.end() && right != ids.end())
        merges.push_back({left->second, right->second, static_cast<int32_t>(i)});
    }
    std::sort(merges.begin() + first, merges.end(), [](const Merge& a, const Merge& b) {
      return std::pair(a.left, a.right) < std::pair(b.left, b.right);
    });
  }
  std::stable_sort(merges.begin(), merges.end(), [&](const Merge& a, const Merge& b) {
    return gguf.scores[static_cast<std::size_t>(a.piece)] > gguf.scores[static_cast<std::size_t>(b.piece)];
  });
  return merges;
}

}  // namespace

std::string llama_spm_tokenizer_json(const std::string& gguf_path) {
  const GgufReader gguf(gguf_path);
  std::unordered_map<std::string, int32_t> ids;
  for (std::size_t i = 0; i < gguf.tokens.size(); ++i) ids.emplace(gguf.tokens[i], static_cast<int32_t>(i));
  nlohmann::json file = nlohmann::json::parse(R"json({
    "added_tokens": [{"id": 0, "content": "<unk>", "normalized": false, "special": true},
                     {"id": 1, "content": "<s>", "normalized": false, "special": true},
                     {"id": 2, "content": "</s>", "normalized": false, "special": true}],
    "normalizer": {"type": "Sequence", "normalizers": [
      {"type": "Prepend", "prepend": "▁"},
      {"type": "Replace", "pattern": {"String": " "}, "content": "▁"}]},
    "pre_tokenizer": null,
    "post_processor": {"type": "TemplateProcessing",
      "single": [{"SpecialToken": {"id": "<s>", "type_id": 0}}, {"Sequence": {"id": "A", "type_id": 0}}],
      "special_tokens": {"<s>": {"id": "<s>", "ids": [1], "tokens": ["<s>"]}}},
    "decoder": {"type": "Sequence", "decoders": [
      {"type": "Replace", "pattern": {"String": "▁"}, "content": " "}, {"type": "ByteFallback"}, {"type": "Fuse"},
      {"type": "Strip", "content": " ", "start": 1, "stop": 0}]},
    "model": {"type": "BPE", "unk_token": "<unk>", "fuse_unk": true, "byte_fallback": true}})json");
  auto& merges = file["model"]["merges"] = nlohmann::json::array();
  for (const Merge& merge : merges_of(gguf, ids))
    merges.push_back({gguf.tokens[static_cast<std::size_t>(merge.left)],
                      gguf.tokens[static_cast<std::size_t>(merge.right)]});
  file["model"]["vocab"] = ids;
  return file.dump();
}

}  // namespace kva
