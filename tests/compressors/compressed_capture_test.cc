#include "compressors/compressed_capture.h"

#include <fmt/format.h>
#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <unistd.h>

#include <cmath>
#include <cstring>
#include <deque>
#include <filesystem>
#include <nlohmann/json.hpp>

#include "compressors/compressed_manifest.h"
#include "kernels/convert.h"
#include "runtime/io/file.h"
#include "runtime/io/hash.h"
#include "tests/compressors/random_sample.h"
#include "tests/error_of.h"

namespace kva {
namespace {

namespace fs = std::filesystem;
using nlohmann::ordered_json;
using ::testing::AnyOf;
using ::testing::HasSubstr;

constexpr CacheShape kShape{
    .layers = 4, .kv_heads = 2, .head_dim = 16, .page_tokens = 16, .type = DType::kF16};

// Two sets, three prompts of 10, 0 and 6 pages; the third begins like the first.
PageSet captured(DType type, KeyBasis basis = KeyBasis::kRotated, bool rope = true) {
  PageSet pages = normal_sample(kShape, 16, 3);
  pages.key_basis = basis;
  if (rope) pages.rope = Rope(kShape.head_dim, kShape.head_dim, 10000.0, {});
  pages.prompts = {{"general", "one", 165, 10, 40}, {"general", "short", 9, 0, 0}, {"code", "two", 96, 6, 0}};
  for (int64_t page = 10; page < 16; ++page)
    pages.pages[static_cast<std::size_t>(page)] = {2, (page - 10) * 16};
  const auto typed = std::make_shared<std::vector<std::vector<std::byte>>>();
  const int64_t count = 16 * pages.page_values();
  for (const std::byte*& values : pages.values) {
    std::vector<float> numbers(static_cast<std::size_t>(count));
    std::memcpy(numbers.data(), values, numbers.size() * sizeof(float));
    std::copy_n(numbers.begin(), 3 * pages.page_values(), numbers.begin() + 10 * pages.page_values());
    std::vector<std::byte>& bytes = typed->emplace_back(static_cast<std::size_t>(count * dtype_bytes(type)));
    from_f32(numbers.data(), type, bytes.data(), count);
    values = bytes.data();
  }
  pages.dtype = type;
  pages.owner = typed;
  return pages;
}

class CompressedCaptureTest : public testing::Test {
 protected:
  CompressedCaptureTest() {
    home_ = fs::temp_directory_path() / ("kva_compressed_test." + std::to_string(::getpid()));
    fs::remove_all(home_);
    fs::create_directories(home_);
    folder = (home_ / "compressed").string();
  }
  ~CompressedCaptureTest() override { fs::remove_all(home_); }

  std::unique_ptr<Replay> replayed(const std::string& text, const PageSet& pages) {
    kept.emplace_back(Recipe::parse(text), pages);
    auto replay = std::make_unique<Replay>(kept.back().first, kept.back().second, pool, 0);
    if (replay->needs_sample()) replay->fit(pages);
    replay->run([](int64_t) {});
    return replay;
  }
  std::vector<StoredFile> write(const Replay& replay, int level) {
    CompressedWriter writer(folder);
    auto files =
        writer.write(StoredPages(replay), level, {{"model", {{"name", "test"}}}}, {{"command", "test"}});
    writer.finish();
    return files;
  }
  std::string at(const std::string& name) const { return folder + "/" + name; }

  ThreadPool pool{2};
  std::deque<std::pair<Recipe, PageSet>> kept;  // what replays refer to
  fs::path home_;
  std::string folder;
};

std::vector<float> page_of(const Replay& replay, int64_t page, const Cell& cell) {
  std::vector<float> rows(16 * 16);
  replay.read_page(page, cell, replay.pages().key_basis, MatView<float>(rows.data(), 16, 16));
  return rows;
}

void expect_same_pages(const Replay& replay, const CompressedCapture& stored) {
  std::vector<float> rows(16 * 16);
  for (int64_t page = 0; page < 16; ++page)
    for (int layer = 0; layer < kShape.layers; ++layer)
      for (int head = 0; head < kShape.kv_heads; ++head)
        for (const Side side : {Side::kKey, Side::kValue}) {
          stored.read_page(page, layer, head, side, MatView<float>(rows.data(), 16, 16));
          ASSERT_EQ(rows, page_of(replay, page, {layer, head, side})) << page << " " << layer << " " << head;
        }
}

constexpr const char* kRecipes[] = {
    "dense(f16)",
    "dense(fp8)",
    "dense(bf16)",
    "dedup(exact)",
    "dedup(cos=0.3) | minicache(start=0)",
    "keys(plain); dedup(l2=0.2, scope=head)",
    "layershare(start=0, every=3)",
    "minicache(start=0, retain=0.2) | quant(bits=8, rotate=true)",
    "lowrank(rank=4, fit_tokens=32)",
    "keys(page-relative); lowrank(layers=2, rank=16, fit_tokens=64) | quant(bits=4)",
    "lowrank(rank=8, fit_tokens=32, refresh=0.3) | quant(bits=4)",
    "lowrank(fit_tokens=32) | minicache(start=0)",
    "quant(k=4,v=4,axes=kivi,group=page,outliers=0.01)",
    "quant(bits=3, axes=group, group=5, symmetric=true, window=20)",
    "quant(bits=2, sinks=4, dense_channels=2, norm_correct=true)",
    "dedup(exact, scope=cache) | quant(bits=4, rotate=true)",
    "quant(bits=8)@prefill",
    "nuq(bits=3)",
    "minicache(start=0) | nuq(bits=4, axes=channel)",
    "turboquant(bits=4)",
    "lowrank(layers=2, rank=16, fit_tokens=64) | turboquant(bits=8)",
    "pq(m=4, bits=4)",
    "gear(rank=3)",
    "budget(bits=9)",
    "layers(0): dense(f16); rest: quant(bits=4)",
    "quant(k=8, v=4) | zstd",
    "dedup(exact) | zstd(window=32)",
    "minicache(start=0) | quant(bits=4) | zstd@prefill"};

TEST_F(CompressedCaptureTest, HoldsWhatTheReplayedCacheHoldsForEveryMethod) {
  const PageSet pages = captured(DType::kF16);
  for (const char* recipe : kRecipes) {
    SCOPED_TRACE(recipe);
    const auto replay = replayed(recipe, pages);
    const ByteLedger ledger = replay->cache().ledger();
    EXPECT_EQ(replay->appended_bytes() - replay->stats().predicted_bytes, ledger.payload + ledger.scales);
    for (const int level : {0, 3}) {
      const auto files = write(*replay, level);
      for (const StoredPart part : kStoredParts)
        EXPECT_EQ(files[static_cast<std::size_t>(part)].facts.raw_bytes,
                  StoredPages(*replay).raw_bytes(part));
      const CompressedCapture stored = CompressedCapture::load(folder);
      EXPECT_EQ(stored.payload_bytes(), ledger.payload + ledger.scales);
      EXPECT_EQ(stored.recipe(), Recipe::parse(recipe).text());
      EXPECT_EQ(stored.facts()["model"]["name"], "test");
      expect_same_pages(*replay, stored);
    }
  }
}

TEST_F(CompressedCaptureTest, DenseAndDedupLoseNoBitInAnyTypeAndBasis) {
  for (const DType type : {DType::kF16, DType::kBF16, DType::kF32})
    for (const KeyBasis basis : {KeyBasis::kRotated, KeyBasis::kPlain, KeyBasis::kPageRelative})
      for (const char* method : {"dense", "dedup(exact)"}) {
        const PageSet pages = captured(type, basis);
        const std::string recipe =
            std::string("keys(") + std::string(key_basis_name(basis)) + "); " + method +
            (method == std::string("dense") ? fmt::format("({})", dtype_name(type)) : "");
        SCOPED_TRACE(recipe);
        const auto replay = replayed(recipe, pages);
        std::vector<float> exact(16 * 16);
        for (int64_t page = 0; page < 16; ++page)
          for (const Side side : {Side::kKey, Side::kValue}) {
            const Cell cell{3, 1, side};
            read_captured(pages, page, cell, basis, MatView<float>(exact.data(), 16, 16));
            ASSERT_EQ(page_of(*replay, page, cell), exact);
          }
      }
}

TEST_F(CompressedCaptureTest, KeysInAnotherBasisComeBackWithinRounding) {
  for (const KeyBasis basis : {KeyBasis::kRotated, KeyBasis::kPlain, KeyBasis::kPageRelative}) {
    const PageSet pages = captured(DType::kF32, basis);
    for (const char* recipe : {"dense(f32)", "keys(plain); dense(f32)", "keys(page-relative); dense(f32)"}) {
      const auto replay = replayed(recipe, pages);
      std::vector<float> exact(16 * 16);
      read_captured(pages, 9, {2, 1, Side::kKey}, basis, MatView<float>(exact.data(), 16, 16));
      const auto read = page_of(*replay, 9, {2, 1, Side::kKey});
      for (std::size_t i = 0; i < exact.size(); ++i) ASSERT_NEAR(read[i], exact[i], 1e-5) << recipe;
    }
  }
}

TEST_F(CompressedCaptureTest, AnotherBasisTurnsAsTheDecoderDoes) {
  // Plain keys appended to a cache with RoPE, beside the same replayed.
  const PageSet pages = captured(DType::kF32, KeyBasis::kPlain);
  const auto replay = replayed("dense(f32)", pages);
  std::vector<float> exact(16 * 16), rotated(16 * 16);
  read_captured(pages, 7, {1, 0, Side::kKey}, KeyBasis::kPlain, MatView<float>(exact.data(), 16, 16));
  for (int64_t t = 0; t < 16; ++t) pages.rope->rotate(exact.data() + t * 16, 7 * 16 + t);
  replay->read_page(7, {1, 0, Side::kKey}, KeyBasis::kRotated, MatView<float>(rotated.data(), 16, 16));
  EXPECT_EQ(rotated, exact);
}

TEST_F(CompressedCaptureTest, LearnedPositionsHaveOneBasis) {
  const PageSet pages = captured(DType::kF16, KeyBasis::kPlain, false);
  const auto replay = replayed("dense(f16)", pages);
  write(*replay, 0);
  expect_same_pages(*replay, CompressedCapture::load(folder));
}

TEST_F(CompressedCaptureTest, SharedPagesAreStoredOnce) {
  const PageSet pages = captured(DType::kF16);
  const auto dense = replayed("dense(f16)", pages), dedup = replayed("dedup(exact)", pages);
  const int64_t tables = int64_t{kShape.layers} * kShape.kv_heads * 2;
  EXPECT_EQ(StoredPages(*dense).sides(), 16 * tables);
  EXPECT_EQ(StoredPages(*dedup).sides(), 13 * tables);  // three pages of the third prompt are the first's
  EXPECT_EQ(StoredPages(*dedup).refs(), 16 * tables);
}

TEST_F(CompressedCaptureTest, ThreadsChangeNoByte) {
  const PageSet pages = captured(DType::kF16);
  ThreadPool one(1);
  const Recipe recipe = Recipe::parse("lowrank(rank=4, fit_tokens=32) | quant(bits=4)");
  Replay alone(recipe, pages, one, 0);
  alone.run([](int64_t) {});
  const auto files = write(alone, 3);
  const auto again = write(*replayed(recipe.text(), pages), 3);
  for (const StoredPart part : kStoredParts)
    EXPECT_EQ(files[static_cast<std::size_t>(part)].facts.hash,
              again[static_cast<std::size_t>(part)].facts.hash);
}

TEST_F(CompressedCaptureTest, RefusesWhatACaptureCannotFeed) {
  const PageSet pages = captured(DType::kF16);
  const auto refusal = [&](const char* text) { return error_of([&] { replayed(text, pages); }); };
  EXPECT_THAT(refusal("dense(f16) | evict(0.5)"), HasSubstr("evict"));
  EXPECT_THAT(refusal("merge(0.5)"), HasSubstr("a capture has no queries"));
  EXPECT_THAT(refusal("keys(plain,cache-relative)"), HasSubstr("expected positions of the text"));
  EXPECT_THAT(refusal("dedup(prefix)"), HasSubstr("use dedup(exact)"));
  EXPECT_THAT(refusal("layers(9): dense(f16)"), HasSubstr("layer"));
  PageSet other = normal_sample({.layers = 4, .kv_heads = 2, .head_dim = 8}, 4, 1);
  const Recipe recipe = Recipe::parse("nuq");
  Replay replay(recipe, pages, pool, 0);
  EXPECT_THAT(error_of([&] { replay.fit(other); }),
              HasSubstr("--calibration: expected a capture with numbers"));
}

TEST_F(CompressedCaptureTest, FoldersOfOthersAreRefusedAndNothingHalfIsLeft) {
  const auto replay = replayed("dense(f16)", captured(DType::kF16));
  { CompressedWriter unfinished(folder); }
  EXPECT_FALSE(fs::exists(folder));
  fs::create_directories(folder);
  write_text_file(at("manifest.json"), "{}");
  write_text_file(at("layer_00.k.safetensors"), "x");
  EXPECT_THAT(error_of([&] { CompressedWriter writer(folder); }), HasSubstr("layer_00.k.safetensors"));
  fs::remove_all(folder);
  write(*replay, 3);
  write(*replay, 0);
  EXPECT_FALSE(fs::exists(at("payload.bin.zst")));
}

// ---- Damage ---------------------------------------------------------------------------------------------

TEST_F(CompressedCaptureTest, NamesDamagedFiles) {
  const auto replay = replayed("quant(bits=4)", captured(DType::kF16));
  for (const int level : {0, 3}) {
    write(*replay, level);
    for (const char* part : {"sides", "payload", "refs"}) {
      const std::string name = at(std::string(part) + (level > 0 ? ".bin.zst" : ".bin"));
      const std::string whole = read_text_file(name, 1 << 24);
      const auto load_with = [&](const std::string& bytes) {
        write_text_file(name, bytes);
        return error_of([&] { CompressedCapture::load(folder); });
      };
      EXPECT_THAT(load_with(whole.substr(0, whole.size() - 1)), HasSubstr("truncated"));
      EXPECT_THAT(load_with(whole + "x"), HasSubstr("too long"));
      std::string flipped = whole;
      flipped[whole.size() / 2] = static_cast<char>(flipped[whole.size() / 2] ^ 1);
      EXPECT_THAT(load_with(flipped), HasSubstr("checksum"));
      EXPECT_EQ(load_with(whole), "no error");
      fs::remove(name);
      EXPECT_THAT(error_of([&] { CompressedCapture::load(folder); }), HasSubstr(part));
      write_text_file(name, whole);
    }
  }
}

TEST_F(CompressedCaptureTest, NamesEachDefectOfTheManifest) {
  write(*replayed("lowrank(rank=4, fit_tokens=32) | quant(bits=4)", captured(DType::kF16)), 3);
  const auto good = ordered_json::parse(read_text_file(at("manifest.json"), 1 << 24));
  const struct {
    const char* pointer;
    ordered_json value;
    const char* message;
  } cases[] = {
      {"/format", "kvanalyze.capture", "format: expected \"kvanalyze.compressed\""},
      {"/version", 3, "version 3"},
      {"/version", 1, "compress the capture again"},
      {"/layers", 5, "raw_bytes"},
      {"/sides", 7, "bytes of sides"},
      {"/stored_basis", "turned", "stored_basis"},
      {"/zstd_level", 40, "zstd_level"},
      {"/zstd_level", 0, "expected \"arrays.bin\""},
      {"/codecs/0/kind", "rm", "codecs[0].kind"},
      {"/codecs/0/bits", 5, "codecs[0].bits"},
      {"/codecs/0/group", -1, "codecs[0].group"},
      {"/codecs/0/outliers", 2.0, "codecs[0].outliers"},
      {"/codecs/1/inner", {1}, "codecs[1].inner[0]"},
      {"/codecs/1/inner", ordered_json::array(), "one other inside"},
      {"/codecs/1/arrays", {99999}, "codecs[1].arrays[0]"},
      {"/codecs/1/rank", 1000, "a basis of whole cells"},
      {"/codecs/1/cells", 4, "expected 1"},
      {"/arrays/0", 3, "bytes of arrays"},
      {"/files/2/raw_bytes", 1LL << 55, "more memory"},
      {"/files/1/name", "../sides.bin.zst", "files[1].name"},
      {"/facts", 7, "facts"},
      {"/pages", 1 << 30, "page"},
  };
  for (const auto& c : cases) {
    ordered_json bad = good;
    bad[ordered_json::json_pointer(c.pointer)] = c.value;
    write_text_file(at("manifest.json"), bad.dump());
    EXPECT_THAT(error_of([&] { CompressedCapture::load(folder); }), HasSubstr(c.message)) << c.pointer;
  }
}

// Files that agree with their checksums and not with each other: each ends in one line or reads back as
// numbers.
TEST_F(CompressedCaptureTest, ForgedFilesAreRefusedOrReadAsNumbers) {
  SplitMix64 random(11);
  int refused = 0;
  for (const char* recipe :
       {"quant(bits=4, outliers=0.02, dense_channels=2)", "minicache(start=0, retain=0.3) | quant(bits=8)",
        "nuq(bits=3)", "lowrank(layers=2, rank=16, fit_tokens=64)", "turboquant(bits=4)",
        "pq(m=4, bits=4)"}) {
    SCOPED_TRACE(recipe);
    const auto replay = replayed(recipe, captured(DType::kF16));
    write(*replay, 0);
    const auto good = ordered_json::parse(read_text_file(at("manifest.json"), 1 << 24));
    for (int round = 0; round < 60; ++round) {
      ordered_json bad = good;
      const std::size_t part = random.next() % 4;
      const std::string name = at(good["files"][part]["name"]);
      const std::string whole = read_text_file(name, 1 << 24);
      if (whole.empty()) continue;
      std::string forged = whole;
      for (int i = 0; i < 4; ++i) forged[random.next() % forged.size()] = static_cast<char>(random.next());
      write_text_file(name, forged);
      bad["files"][part]["hash"] = text_hash(forged);
      write_text_file(at("manifest.json"), bad.dump());
      std::vector<float> rows(16 * 16);
      const std::string error = error_of([&] {
        const CompressedCapture stored = CompressedCapture::load(folder);
        for (int64_t page = 0; page < 16; ++page)
          stored.read_page(page, 1, 1, Side::kValue, MatView<float>(rows.data(), 16, 16));
      });
      refused += error != "no error";
      EXPECT_THAT(error, AnyOf("no error", HasSubstr("expected"))) << error;
      write_text_file(name, whole);
    }
  }
  EXPECT_GT(refused, 20);
}

TEST_F(CompressedCaptureTest, AFrameThatSwellsIsReadNoFurtherThanAsked) {
  const std::string name = (home_ / "zeros.zst").string();
  PackedFileWriter writer(name, 1);
  const std::vector<std::byte> zeros(1 << 20);
  for (int i = 0; i < 64; ++i) writer.write(zeros);
  const PackedFileFacts facts = writer.finish();
  EXPECT_EQ(facts.raw_bytes, 64 << 20);
  EXPECT_LT(facts.bytes, 64 << 10);
  PackedFileReader reader(name, facts, true);
  std::vector<std::byte> few(10);
  reader.read(few);
  EXPECT_FALSE(reader.at_end());
}

}  // namespace
}  // namespace kva
