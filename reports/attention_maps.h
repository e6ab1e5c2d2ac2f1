// What --save-attention writes: where the queries of each KV head looked, as pictures and as numbers.
#pragma once

#include <cstdint>
#include <nlohmann/json_fwd.hpp>
#include <span>
#include <string>
#include <vector>

#include "reports/gnuplot.h"
#include "reports/progress.h"
#include "runtime/kv/kv_cache.h"

namespace kva {

// Of one sequence under one recipe.
struct AttentionMaps {
  std::string name;  // recipe or strategy
  int layers = 0;
  int kv_heads = 0;
  int64_t tokens = 0;        // of the sequence
  int64_t block_tokens = 0;  // of a block of queries or keys
  int64_t blocks = 0;        // that the tokens fill, the last one maybe in part
  // [layer * kv_heads + kv_head], [blocks, blocks]: the share of its attention that a query of the block gave
  // to the block of keys, on average over the block's queries and the KV head's query heads. Rows sum to 1.
  // Exactly 0 where all keys of the block are in the future, evicted or hidden.
  std::vector<std::vector<float>> shares;

  const std::vector<float>& of(int layer, int kv_head) const {
    return shares[static_cast<std::size_t>(int64_t{layer} * kv_heads + kv_head)];
  }
};

// Of a sequence that the cache mapped from its first token on.
AttentionMaps take_attention(const KvCache& cache, SequenceId sequence, const std::string& name);

// All numbers to three digits (docs/formats.md). `text` says what was read.
nlohmann::ordered_json attention_json(std::span<const AttentionMaps> maps, const std::string& model,
                                      const std::string& text);

// layerL_headH.png: a panel for each of the maps, which have the same layers and heads.
Figure attention_figure(std::span<const AttentionMaps> maps, int layer, int kv_head, const std::string& model,
                        const std::string& text);

// Whether write_attention() gives a file this name.
bool is_attention_file(const std::string& name);

// Writes attention.json and, with gnuplot, the PNG of every KV head (none without `plots`) into the folder,
// which is made where it is missing. Returns a line for each thing that could not be made. Throws InputError,
// Interrupted.
std::vector<std::string> write_attention(const std::string& folder, std::span<const AttentionMaps> maps,
                                         const std::string& model, const std::string& text, bool plots,
                                         Progress& progress);

}  // namespace kva
