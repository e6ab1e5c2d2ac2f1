#include "reports/attention_maps.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <filesystem>
#include <nlohmann/json.hpp>
#include <numeric>

#include "reports/gnuplot.h"
#include "runtime/io/file.h"
#include "tests/compressors/compressed_cache.h"

namespace kva {
namespace {

namespace fs = std::filesystem;
using Json = nlohmann::ordered_json;

AttentionMaps maps_of(const std::string& recipe, int64_t tokens) {
  ThreadPool pool(2);
  const CacheShape shape{.layers = 2, .group = 2, .head_dim = 16, .type = DType::kF32};
  const Projections source(shape, tokens, 3);
  CompressedCache compressed(recipe, pool, shape);
  const SequenceId id = compressed.driver.add(source);
  compressed.driver.cache.map_attention(id);
  compressed.feed(id, tokens, 16);
  return take_attention(compressed.driver.cache, id, recipe);
}

TEST(AttentionMaps, RowsAreWholeQueriesAndNothingLooksAhead) {
  for (const int64_t tokens : {40, 300}) {  // blocks of one token and of four
    const AttentionMaps maps = maps_of("dense(f32)", tokens);
    EXPECT_EQ(maps.tokens, tokens);
    EXPECT_EQ(maps.block_tokens, tokens == 40 ? 1 : 4);
    ASSERT_EQ(maps.blocks, tokens / maps.block_tokens);
    ASSERT_EQ(maps.shares.size(), 4u);
    for (const auto& shares : maps.shares)
      for (int64_t query = 0; query < maps.blocks; ++query) {
        const auto row = shares.begin() + query * maps.blocks;
        EXPECT_NEAR(std::accumulate(row, row + query + 1, 0.0), 1.0, 1e-4);
        EXPECT_EQ(std::accumulate(row + query + 1, row + maps.blocks, 0.0), 0.0);
      }
  }
  // 301 tokens: the last block has one query.
  const AttentionMaps part = maps_of("dense(f32)", 301);
  ASSERT_EQ(part.blocks, 76);
  const auto last = part.of(1, 1).end() - part.blocks;
  EXPECT_NEAR(std::accumulate(last, part.of(1, 1).end(), 0.0), 1.0, 1e-4);
}

TEST(AttentionMaps, EvictedTokensAreEmpty) {
  const AttentionMaps maps = maps_of("AttentionSink(sink=4,window=16)", 120);
  const std::vector<float>& shares = maps.of(1, 0);
  const auto share = [&](int64_t query, int64_t key) {
    return shares[static_cast<std::size_t>(query * maps.blocks + key)];
  };
  for (int64_t query = 64; query < 120; ++query) {
    EXPECT_GT(share(query, 0), 0.0f);
    EXPECT_GT(share(query, query), 0.0f);
    for (int64_t key = 4; key < query - 40; ++key) EXPECT_EQ(share(query, key), 0.0f) << query << " " << key;
  }
}

TEST(AttentionMaps, JsonHoldsTheLowerTriangle) {
  const std::vector<AttentionMaps> maps = {maps_of("dense(f32)", 30), maps_of("Random(keep=0.5)", 30)};
  const Json json = attention_json(maps, "model", "text");
  ASSERT_EQ(json.at("maps").size(), 2u);
  const Json& map = json.at("maps")[1];
  EXPECT_EQ(map.at("name"), "Random(keep=0.5)");
  EXPECT_EQ(map.at("tokens"), 30);
  ASSERT_EQ(map.at("heads").size(), 4u);
  const Json& head = map.at("heads")[3];
  EXPECT_EQ(head.at("layer"), 1);
  EXPECT_EQ(head.at("kv_head"), 1);
  ASSERT_EQ(head.at("shares").size(), 30u);
  for (std::size_t query = 0; query < 30; ++query) {
    ASSERT_EQ(head.at("shares")[query].size(), query + 1);
    for (std::size_t key = 0; key <= query; ++key) {
      const double share = maps[1].of(1, 1)[query * 30 + key];
      EXPECT_NEAR(head.at("shares")[query][key].get<double>(), share, 5e-3 * share) << "three digits";
    }
  }
}

TEST(AttentionMaps, WritesAPictureForEachHead) {
  const fs::path folder = fs::path(testing::TempDir()) / "kva_attention_maps";
  fs::remove_all(folder);
  const std::vector<AttentionMaps> maps = {maps_of("dense(f32)", 30), maps_of("Random(keep=0.5)", 30)};
  Progress progress(Progress::Mode::kQuiet);
  const auto notes = write_attention((folder / "images").string(), maps, "model", "te'xt", true, progress);
  EXPECT_TRUE(fs::exists(folder / "images/attention.json"));
  for (const char* name : {"layer0_head0.png", "layer0_head1.png", "layer1_head0.png", "layer1_head1.png"}) {
    EXPECT_TRUE(is_attention_file(name));
    if (!gnuplot_available()) continue;
    const std::string bytes = read_text_file((folder / "images" / name).string(), int64_t{1} << 24);
    EXPECT_EQ(bytes.substr(1, 3), "PNG");
    EXPECT_GT(bytes.size(), 10000u);
  }
  EXPECT_EQ(notes.empty(), gnuplot_available());
  for (const char* name : {"layer0_head0.png.bak", "layer_head0.png", "mine.png", "layer0_head0.pngx"})
    EXPECT_FALSE(is_attention_file(name)) << name;
  EXPECT_TRUE(write_attention((folder / "numbers").string(), maps, "model", "text", false, progress).empty());
  EXPECT_TRUE(fs::exists(folder / "numbers/attention.json"));
  EXPECT_FALSE(fs::exists(folder / "numbers/layer0_head0.png"));
  fs::remove_all(folder);
}

}  // namespace
}  // namespace kva
