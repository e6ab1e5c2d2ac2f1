#include "runtime/kv/capture.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <sys/resource.h>
#include <unistd.h>

#include <csignal>
#include <cstring>
#include <filesystem>
#include <fstream>
#include <nlohmann/json.hpp>

#include "runtime/io/file.h"
#include "runtime/kv/capture_manifest.h"
#include "tests/error_of.h"
#include "tests/runtime/kv/cache_fixture.h"

namespace kva {
namespace {

namespace fs = std::filesystem;
using nlohmann::ordered_json;
using ::testing::HasSubstr;

const ordered_json kFacts = {{"model", {{"name", "a test"}, {"zeta", 1}, {"alpha", 0.1}}}};
const ordered_json kProvenance = {{"command", "test"}};

class CaptureTest : public testing::Test {
 protected:
  CaptureTest() {
    home_ = fs::temp_directory_path() / ("kva_capture_test." + std::to_string(::getpid()));
    fs::remove_all(home_);
    fs::create_directories(home_);
    folder = (home_ / "capture").string();
  }
  ~CaptureTest() override { fs::remove_all(home_); }

  // Two prompts of one set and one of another.
  void record(PageSink& sink, DType dtype) {
    CacheDriver driver(shape, pool);
    sink.begin(shape.options(), dtype);
    const struct {
      const char *set, *name;
      int64_t tokens;
    } prompts[] = {{"general", "one", 37}, {"general", "short", 3}, {"code", "two", 50}};
    for (const auto& prompt : prompts) {
      const Projections source(shape, prompt.tokens, static_cast<unsigned>(prompt.tokens));
      const SequenceId id = driver.add(source);
      driver.feed(id, 20);
      sink.add_prompt({prompt.set, prompt.name, prompt.tokens, driver.cache.sealed_pages(id), 2},
                      driver.cache, id);
      driver.cache.free_sequence(id);
    }
  }
  void write(DType dtype) {
    CaptureWriter writer(folder);
    record(writer, dtype);
    writer.finish(kFacts, kProvenance);
  }
  std::vector<std::string> names_at_home() const {
    std::vector<std::string> names;
    for (const auto& entry : fs::directory_iterator(home_)) names.push_back(entry.path().filename());
    return names;
  }
  std::string at(const std::string& name) const { return folder + "/" + name; }
  ordered_json manifest() const { return ordered_json::parse(read_text_file(at("manifest.json"), 1 << 20)); }
  void rewrite(const ordered_json& manifest) { write_text_file(at("manifest.json"), manifest.dump()); }

  CacheShape shape{.layers = 3, .kv_heads = 2, .group = 1, .head_dim = 20, .page_tokens = 16};
  ThreadPool pool{1};
  fs::path home_;
  std::string folder;
};

void expect_same_layout(const PageSet& a, const PageSet& b) {
  EXPECT_EQ(a.layers, b.layers);
  EXPECT_EQ(a.kv_heads, b.kv_heads);
  EXPECT_EQ(a.head_dim, b.head_dim);
  EXPECT_EQ(a.page_tokens, b.page_tokens);
  EXPECT_EQ(a.dtype, b.dtype);
  EXPECT_EQ(a.key_basis, b.key_basis);
  ASSERT_EQ(a.rope.has_value(), b.rope.has_value());
  if (a.rope) {
    const auto x = a.rope->inverse_frequencies(), y = b.rope->inverse_frequencies();
    EXPECT_TRUE(std::equal(x.begin(), x.end(), y.begin(), y.end()));
  }
  ASSERT_EQ(a.prompts.size(), b.prompts.size());
  for (std::size_t i = 0; i < a.prompts.size(); ++i) {
    EXPECT_EQ(a.prompts[i].set, b.prompts[i].set);
    EXPECT_EQ(a.prompts[i].name, b.prompts[i].name);
    EXPECT_EQ(a.prompts[i].tokens, b.prompts[i].tokens);
    EXPECT_EQ(a.prompts[i].pages, b.prompts[i].pages);
    EXPECT_EQ(a.prompts[i].generated, b.prompts[i].generated);
  }
  ASSERT_EQ(a.page_count(), b.page_count());
  for (std::size_t i = 0; i < a.pages.size(); ++i) {
    EXPECT_EQ(a.pages[i].prompt, b.pages[i].prompt);
    EXPECT_EQ(a.pages[i].start, b.pages[i].start);
  }
}

TEST_F(CaptureTest, MemoryAndFolderHoldTheSameBitsForEveryTypeAndBasis) {
  for (const DType type : {DType::kF32, DType::kF16, DType::kBF16}) {
    for (const KeyBasis basis : {KeyBasis::kRotated, KeyBasis::kPlain, KeyBasis::kPageRelative}) {
      for (const bool rope : {true, false}) {
        shape.type = type;
        shape.basis = basis;
        shape.rope = rope;
        MemoryCapture memory;
        record(memory, type);
        const PageSet kept = memory.pages();
        write(type);
        const Capture loaded = load_capture(folder);
        expect_same_layout(kept, loaded.pages);
        EXPECT_EQ(kept.page_count(), 2 + 0 + 3);
        EXPECT_EQ(kept.pages[2].prompt, 2);
        EXPECT_EQ(kept.pages[3].start, 16);
        EXPECT_EQ(loaded.facts->dump(), kFacts.dump());
        EXPECT_EQ(loaded.provenance->dump(), kProvenance.dump());
        const auto bytes =
            static_cast<std::size_t>(kept.page_count() * kept.page_values() * dtype_bytes(type));
        ASSERT_EQ(kept.values.size(), 6u);
        for (std::size_t i = 0; i < 6; ++i)
          EXPECT_EQ(std::memcmp(kept.values[i], loaded.pages.values[i], bytes), 0) << i;
      }
    }
  }
}

TEST_F(CaptureTest, ValuesAreThoseOfTheCacheInTheirOrder) {
  MemoryCapture memory;
  record(memory, DType::kF32);
  const PageSet set = memory.pages();
  const Projections two(shape, 50, 50);
  // Prompt "two", its second page (page 3 of the set), layer 2, head 1, token 5, value 7.
  const auto at = static_cast<std::size_t>(((3 * 2 + 1) * 16 + 5) * 20 + 7);
  float value = 0.0f;
  std::memcpy(&value, set.side_values(2, Side::kValue) + at * sizeof(float), sizeof(float));
  EXPECT_EQ(value, two.v[static_cast<std::size_t>(((16 + 5) * 2 + 1) * 20 + 7)]);
}

TEST_F(CaptureTest, AnUnfinishedCaptureLeavesNothing) {
  {
    CaptureWriter writer(folder);
    record(writer, DType::kF16);
    EXPECT_EQ(names_at_home().size(), 1u);  // the temporary folder
  }
  EXPECT_TRUE(names_at_home().empty());
}

TEST_F(CaptureTest, AFullDiskIsOneClearErrorAndLeavesNothing) {
  std::signal(SIGXFSZ, SIG_IGN);
  struct rlimit before = {};
  getrlimit(RLIMIT_FSIZE, &before);
  struct rlimit small = before;
  small.rlim_cur = 2000;  // writing fails within the first tensor file, as on a full disk
  {
    CaptureWriter writer(folder);
    setrlimit(RLIMIT_FSIZE, &small);
    const std::string error = error_of([&] { record(writer, DType::kF32); });
    setrlimit(RLIMIT_FSIZE, &before);
    EXPECT_THAT(error, HasSubstr("layer_00.k.safetensors: cannot write: File too large"));
  }
  EXPECT_TRUE(names_at_home().empty());
}

TEST_F(CaptureTest, ReplacesAnEarlierCaptureOnlyWhenFinished) {
  write(DType::kF32);
  {
    CaptureWriter writer(folder);
    record(writer, DType::kF16);
  }
  EXPECT_EQ(load_capture(folder).pages.dtype, DType::kF32);
  write(DType::kF16);
  EXPECT_EQ(load_capture(folder).pages.dtype, DType::kF16);
  EXPECT_EQ(names_at_home(), std::vector<std::string>{"capture"});
}

TEST_F(CaptureTest, RefusesFoldersThatHoldSomethingElse) {
  fs::create_directories(folder);
  { CaptureWriter writer(folder); }  // an empty one is fine
  write_text_file(at("thesis.txt"), "years of work");
  EXPECT_THAT(error_of([&] { CaptureWriter writer(folder); }), HasSubstr("found one that holds thesis.txt"));
  EXPECT_THAT(error_of([&] { CaptureWriter writer(at("thesis.txt")); }), HasSubstr("found a file"));
  EXPECT_THAT(error_of([&] { CaptureWriter writer(at("thesis.txt") + "/x/y"); }), HasSubstr("thesis.txt"));
}

// ---- Damage ---------------------------------------------------------------------------------------------

TEST_F(CaptureTest, NamesWhatIsMissing) {
  EXPECT_THAT(error_of([&] { load_capture(folder); }),
              HasSubstr("capture: expected a folder that `kvanalyze"));
  write(DType::kF16);
  fs::remove(at("layer_01.v.safetensors"));
  EXPECT_THAT(error_of([&] { load_capture(folder); }),
              HasSubstr("layer_01.v.safetensors: expected a file of"));
  fs::remove(at("manifest.json"));
  EXPECT_THAT(error_of([&] { load_capture(folder); }), HasSubstr("manifest.json: missing"));
}

TEST_F(CaptureTest, NamesTruncatedAndDamagedFiles) {
  write(DType::kF16);
  const std::string name = at("layer_02.k.safetensors");
  const std::string whole = read_text_file(name, 1 << 24);
  const auto load_with = [&](const std::string& bytes) {
    write_text_file(name, bytes);
    return error_of([&] { load_capture(folder); });
  };
  EXPECT_EQ(load_with(whole), "no error");
  EXPECT_THAT(load_with(whole.substr(0, whole.size() - 1)), HasSubstr("layer_02.k.safetensors: expected"));
  EXPECT_THAT(load_with(whole.substr(0, whole.size() - 1)), HasSubstr("truncated"));
  EXPECT_THAT(load_with(whole + "x"), HasSubstr("too long"));
  EXPECT_THAT(load_with(""), HasSubstr("truncated"));
  // Any flipped byte of the values, and of the header's text, is found. Only its padding may change.
  for (std::size_t i = 0; i < whole.size(); i += i < 256 ? 1 : 97) {
    std::string damaged = whole;
    damaged[i] = static_cast<char>(damaged[i] ^ 4);
    const std::string error = load_with(damaged);
    EXPECT_THAT(error, HasSubstr("layer_02.k.safetensors")) << i;
    if (i >= 256) {
      EXPECT_THAT(error, HasSubstr("checksum of the values")) << i;
    }
  }
}

TEST_F(CaptureTest, NamesEachDefectOfTheManifest) {
  write(DType::kF16);
  const ordered_json good = manifest();
  const auto load_with = [&](const char* pointer, const ordered_json& value) {
    ordered_json bad = good;
    bad[ordered_json::json_pointer(pointer)] = value;
    rewrite(bad);
    return error_of([&] { load_capture(folder); });
  };
  const struct {
    const char* pointer;
    ordered_json value;
    const char* message;
  } cases[] = {
      {"/format", "other", "format: expected \"kvanalyze.capture\", found \"other\""},
      {"/version", 2, "version: this capture has version 2, this program reads up to 1"},
      {"/version", 0, "version: expected a whole number from 1"},
      {"/layers", 4, "files: expected 8 files, two a layer"},
      {"/layers", 1e300, "layers: expected a whole number from 1 to 4096"},
      {"/kv_heads", 3, "files[0].bytes: expected"},
      {"/head_dim", -1, "head_dim: expected"},
      {"/page_tokens", 0, "page_tokens: expected a whole number from 1 to 1024"},
      {"/dtype", "int8", "dtype: expected \"f32\", \"f16\" or \"bf16\", found \"int8\""},
      {"/dtype", "f32", "files[0].bytes: expected"},
      {"/dtype", "bf16", "layer_00.k.safetensors: k: expected the type bf16, found f16"},
      {"/key_basis", "sideways", "key_basis: expected"},
      {"/rope/rotary_dim", 22, "rope.rotary_dim: expected a whole number from 2 to 20"},
      {"/rope/rotary_dim", 18, "rope.inverse_frequencies: expected rotary_dim / 2 = 9 numbers"},
      {"/rope/inverse_frequencies/3", "x", "rope.inverse_frequencies[3]: expected a number"},
      {"/pages", 6, "prompts: expected 6 pages in all prompts together"},
      {"/page_starts", {0, 16, 0, 16}, "page_starts: expected one position for each of 5 pages"},
      {"/prompts/0/pages", 1, "prompts: expected 5 pages in all prompts together"},
      {"/prompts/0/pages", 3, "prompts[0].pages: expected a whole number from 0 to 2"},
      {"/prompts/0/tokens", 48, "no error"},  // a tail of 16 tokens is odd but consistent
      {"/prompts/0/generated", 38, "prompts[0].generated: expected a whole number from 0 to 37"},
      {"/prompts/1/set", "code", "no error"},
      {"/prompts/2/set", "general", "no error"},
      {"/prompts/1", {{"set", 1}}, "prompts[1].set: expected a string"},
      {"/page_starts/1", 0, "page_starts[1]: expected a whole number from 16"},
      {"/files/1/name", "../../etc/passwd", "files[1].name: expected \"layer_00.v.safetensors\""},
      {"/files/1/bytes", 7, "files[1].bytes: expected"},
      {"/files/1/hash", "md5:0", "files[1].hash: expected"},
      {"/facts", 3, "facts: expected an object"},
      {"/provenance", ordered_json::array(), "provenance: expected an object"},
  };
  for (const auto& c : cases) EXPECT_THAT(load_with(c.pointer, c.value), HasSubstr(c.message)) << c.pointer;

  ordered_json mixed = good;
  mixed["prompts"][0]["set"] = "code";
  mixed["prompts"][1]["set"] = "general";
  rewrite(mixed);
  EXPECT_THAT(error_of([&] { load_capture(folder); }),
              HasSubstr("prompts[2].set: expected the prompts of a set"));
  for (const auto& item : good.items()) {
    if (item.key() == "rope") continue;
    ordered_json lacking = good;
    lacking.erase(item.key());
    rewrite(lacking);
    EXPECT_THAT(error_of([&] { load_capture(folder); }), HasSubstr(item.key() + ": this field is required"));
  }
  write_text_file(at("manifest.json"), std::string(100000, '['));
  EXPECT_THAT(error_of([&] { load_capture(folder); }), HasSubstr("nested deeper"));
  write_text_file(at("manifest.json"), "");
  EXPECT_THAT(error_of([&] { load_capture(folder); }), HasSubstr("not valid JSON"));
}

TEST_F(CaptureTest, ASwappedFileIsRefused) {
  write(DType::kF16);
  fs::copy_file(at("layer_00.k.safetensors"), at("layer_01.k.safetensors"),
                fs::copy_options::overwrite_existing);
  fs::copy_file(at("layer_00.k.safetensors"), at("layer_01.v.safetensors"),
                fs::copy_options::overwrite_existing);
  EXPECT_THAT(error_of([&] { load_capture(folder); }), HasSubstr("layer_01.v.safetensors: tensor v"));
}

TEST_F(CaptureTest, ACaptureWithoutFullPagesIsEmptyNotBroken) {
  CaptureWriter writer(folder);
  CacheDriver driver(shape, pool);
  writer.begin(shape.options(), DType::kF16);
  const Projections source(shape, 5, 1);
  const SequenceId id = driver.add(source);
  driver.feed(id, 5);
  writer.add_prompt({"general", "short", 5, 0, 0}, driver.cache, id);
  writer.finish(kFacts, kProvenance);
  EXPECT_EQ(load_capture(folder).pages.page_count(), 0);
}

}  // namespace
}  // namespace kva
