// What the decoder's tests share: stepping tokens through a cache in chunks, and reading keys and values
// back.
#pragma once

#include <algorithm>
#include <cmath>
#include <numeric>
#include <span>
#include <string>
#include <vector>

#include "runtime/io/json.h"
#include "runtime/model/decoder.h"

namespace kva {

struct Golden {
  std::vector<int32_t> tokens;
  std::vector<float> logits;  // [tokens, vocab]
  std::vector<float> k, v;    // [layers, kv_heads, tokens, head_dim], k after RoPE
};

inline Golden load_golden(const std::string& folder) {
  Golden golden;
  const JsonNode tokens = JsonNode::parse_file(folder + "/golden.json").at("tokens");
  for (int64_t i = 0; i < tokens.size(); ++i)
    golden.tokens.push_back(static_cast<int32_t>(tokens.at(i).as_int(0, 1 << 20)));
  const TensorArchive archive = TensorArchive::open_file(folder + "/golden.safetensors");
  const auto values = [&](const char* name) {
    const TensorView* tensor = archive.find(name);
    const auto* data = reinterpret_cast<const float*>(tensor->data);
    return std::vector<float>(data, data + tensor->count());
  };
  golden.logits = values("logits");
  golden.k = values("k");
  golden.v = values("v");
  return golden;
}

// Steps tokens through a new sequence, alone, in chunks of the given sizes (the last one repeats); the logits
// of every token.
inline std::vector<float> run_alone(Decoder& decoder, KvCache& cache, std::span<const int32_t> tokens,
                                    const std::vector<int64_t>& chunks, SequenceId* kept = nullptr) {
  const int64_t vocab = decoder.config().vocab;
  const SequenceId sequence = cache.add_sequence();
  std::vector<float> logits(tokens.size() * static_cast<std::size_t>(vocab));
  const auto count = static_cast<int64_t>(tokens.size());
  std::size_t chunk = 0;
  for (int64_t start = 0; start < count; ++chunk) {
    const int64_t size = std::min(chunks[std::min(chunk, chunks.size() - 1)], count - start);
    std::vector<int64_t> rows(static_cast<std::size_t>(size));
    std::iota(rows.begin(), rows.end(), 0);
    decoder.step(Batch{{{sequence, 0, size, start}}},
                 tokens.subspan(static_cast<std::size_t>(start), static_cast<std::size_t>(size)), cache, rows,
                 MatView<float>(logits.data() + start * vocab, size, vocab));
    start += size;
  }
  if (kept)
    *kept = sequence;
  else
    cache.free_sequence(sequence);
  return logits;
}

// All keys or values of a sequence, [layers, kv_heads, tokens, head_dim], keys after RoPE whatever the basis.
inline std::vector<float> read_side(const KvCache& cache, SequenceId sequence, Side side) {
  const KvCacheOptions& options = cache.options();
  const int64_t tokens = cache.tokens(sequence);
  std::vector<float> values(
      static_cast<std::size_t>(options.layers * options.kv_heads * tokens * options.head_dim));
  float* next = values.data();
  for (int layer = 0; layer < options.layers; ++layer) {
    for (int head = 0; head < options.kv_heads; ++head) {
      for (int64_t start = 0; start < tokens; start += options.page_tokens) {
        const int64_t count = std::min<int64_t>(options.page_tokens, tokens - start);
        const MatView<float> rows(next, count, options.head_dim);
        cache.read_page(sequence, layer, head, start / options.page_tokens, side, rows);
        if (side == Side::kKey && options.rope && options.key_basis != KeyBasis::kRotated)
          for (int64_t t = 0; t < count; ++t)
            options.rope->rotate(rows.row(t), options.key_basis == KeyBasis::kPlain ? start + t : start);
        next += count * options.head_dim;
      }
    }
  }
  return values;
}

// The largest error relative to the largest expected value.
inline double relative_error(std::span<const float> values, std::span<const float> expected) {
  if (values.size() != expected.size()) return INFINITY;
  double error = 0.0;
  double largest = 0.0;
  for (std::size_t i = 0; i < values.size(); ++i) {
    if (!std::isfinite(values[i])) return INFINITY;
    error = std::max(error, std::abs(double{values[i]} - double{expected[i]}));
    largest = std::max(largest, std::abs(double{expected[i]}));
  }
  return error / largest;
}

}  // namespace kva
