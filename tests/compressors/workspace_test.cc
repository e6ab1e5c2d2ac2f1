// The workspace of attention over compressed pages: a tile a thread, however long the context.
#include <gtest/gtest.h>

#include <algorithm>
#include <string>
#include <vector>

#include "compressors/methods.h"
#include "tests/compressors/compressed_cache.h"

namespace kva {
namespace {

// Without RoPE: its table of turns has an entry for each position, the same whatever the format.
constexpr CacheShape kShape{.layers = 2,
                            .kv_heads = 1,
                            .group = 3,
                            .head_dim = 16,
                            .page_tokens = 64,
                            .type = DType::kF16,
                            .rope = false};

// Every format that attention reads, and what formats are built on.
const char* const kRecipes[] = {
    "dense(f16)",
    "dense(fp8)",
    "quant(bits=8)",
    "quant(bits=4)",
    "quant(bits=3)",
    "quant(bits=2)",
    "quant(bits=4, symmetric=true)",
    "quant(bits=4, axes=group, group=8)",
    "quant(bits=4, axes=group, group=5)",
    "quant(k=4,v=4,axes=kivi,group=page,outliers=0.01)",
    "quant(bits=4, dense_channels=2, outliers=0.05)",
    "quant(bits=4, rotate=true, norm_correct=true)",
    "quant(bits=4, sinks=20, window=100)",
    "keys(plain); quant(bits=4)",
    "keys(page-relative); quant(bits=4)",
    "nuq(bits=4)",
    "nuq(bits=8, outliers=0.01)",
    "turboquant(bits=4)",
    "gear(bits=4, rank=4)",
    "budget(bits=9)",
    "zstd",
    "quant(bits=4) | zstd",
    "pq(m=8)",
    "lowrank(rank=0.5, fit_tokens=128)",
    "lowrank(rank=0.5, fit_tokens=128) | quant(bits=4)",
    "lowrank(layers=2, rank=8, fit_tokens=128)",
    "minicache(start=0)",
    "minicache(start=0) | quant(bits=4)",
};

class Workspace : public testing::TestWithParam<const char*> {};

// The workspace after a token was decoded behind `tokens` others.
int64_t workspace_at(CompressedCache& c, SequenceId id, int64_t tokens) {
  c.feed(id, tokens - c.driver.cache.tokens(id), 256);
  c.feed(id, 1, 1);
  return c.driver.cache.ledger().workspace;
}

TEST_P(Workspace, IsTheSameAt1024And8192Tokens) {
  ThreadPool pool(2);
  CompressedCache c(GetParam(), pool, kShape);
  const Projections source(c.shape, 8200, 1);
  const SequenceId id = c.driver.add(source);
  const int64_t before = workspace_at(c, id, 1024);
  EXPECT_EQ(workspace_at(c, id, 8192), before);
  // A thread has a tile of 256 decoded tokens, the scores of a block of 192 query rows or fewer against it,
  // and twice the queries; beside those what a codec decodes a page with, and the states of 16 runs.
  const int64_t dim = c.shape.head_dim;
  const int64_t tile = 256 * dim + 192 * 256 + 2 * 192 * (dim + 1);
  const int64_t codec = 4 * c.shape.page_tokens * dim + 16 * (c.shape.page_tokens + 16 * 256);
  // zstd's decompressor brings its state, whatever it decompresses.
  const int64_t state = std::string(GetParam()).find("zstd") != std::string::npos ? 40 << 10 : 0;
  EXPECT_LE(before, (2 * (tile + codec + state) + 16 * 3 * (dim + 2)) * int64_t{sizeof(float)});
}

std::string name_of(const testing::TestParamInfo<const char*>& info) {
  std::string name = std::to_string(info.index) + "_";
  for (const char c : std::string(info.param)) name += std::isalnum(static_cast<unsigned char>(c)) ? c : '_';
  return name;
}

INSTANTIATE_TEST_SUITE_P(Formats, Workspace, testing::ValuesIn(kRecipes), name_of);

TEST(WorkspaceOfFormats, EveryFormatOfTheListIsMeasured) {
  for (const MethodInfo& method : methods()) {
    if (method.kind != MethodKind::kFormat) continue;
    EXPECT_TRUE(std::any_of(std::begin(kRecipes), std::end(kRecipes), [&](const char* text) {
      return std::string(text).find(method.name) != std::string::npos;
    })) << method.name;
  }
}

}  // namespace
}  // namespace kva
