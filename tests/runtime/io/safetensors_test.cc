#include "runtime/io/safetensors.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <cmath>
#include <cstring>
#include <filesystem>

#include "runtime/io/file.h"
#include "tests/error_of.h"

namespace kva {
namespace {

using ::testing::AllOf;
using ::testing::ElementsAre;
using ::testing::HasSubstr;

std::string file_of(const std::string& header, const std::string& data, uint64_t header_bytes) {
  std::string text;
  for (int i = 0; i < 8; ++i) text += static_cast<char>(header_bytes >> (8 * i) & 0xff);
  return text + header + data;
}
std::string file_of(const std::string& header, const std::string& data) {
  return file_of(header, data, header.size());
}

template <class T>
std::string raw(std::initializer_list<T> values) {
  std::string text(values.size() * sizeof(T), '\0');
  std::memcpy(text.data(), std::data(values), text.size());
  return text;
}

std::span<const std::byte> bytes_of(const std::string& text) { return std::as_bytes(std::span(text)); }

TensorArchive parse(const std::string& text) { return TensorArchive::from_memory(bytes_of(text), "t.st"); }

// The error of a file whose data is 8 bytes long.
std::string header_error(const std::string& header) {
  return error_of([&] { parse(file_of(header, "12345678")); });
}

struct Folder {
  Folder() : path(::testing::TempDir() + "kva_safetensors_XXXXXX") {
    EXPECT_NE(mkdtemp(path.data()), nullptr);
  }
  ~Folder() { std::filesystem::remove_all(path); }
  void write(const std::string& name, const std::string& text) const {
    write_text_file(path + "/" + name, text);
  }
  std::string path;
};

const std::string kTwo =
    R"({"__metadata__":{"format":"pt"},"b":{"dtype":"F32","shape":[1],"data_offsets":[4,8]},)"
    R"("a":{"dtype":"F16","shape":[2,1],"data_offsets":[0,4]}})";

TEST(Safetensors, ReadsViewsWithoutCopy) {
  const std::string header = kTwo + std::string(8 - kTwo.size() % 8, ' ');
  const std::string text = file_of(header, raw<uint16_t>({0x3c00, 0xc000}) + raw({2.5f}));
  const TensorArchive archive = parse(text);
  EXPECT_THAT(archive.names(), ElementsAre("a", "b"));
  EXPECT_EQ(archive.total_bytes(), 8);
  const TensorView& b = archive.at("b", {1});
  EXPECT_EQ(b.dtype, DType::kF32);
  EXPECT_EQ(b.data, bytes_of(text).data() + text.size() - 4);
  EXPECT_EQ(*reinterpret_cast<const float*>(b.data), 2.5f);
  const TensorView& a = archive.at("a", {2, 1});
  EXPECT_EQ(a.dtype, DType::kF16);
  EXPECT_EQ(a.count(), 2);
  EXPECT_EQ(archive.find("c"), nullptr);
}

TEST(Safetensors, AlignsWhatAnUnpaddedHeaderMisaligns) {
  for (int padding = 0; padding < 4; ++padding) {
    const std::string text = file_of(kTwo + std::string(static_cast<std::size_t>(padding), ' '),
                                     raw<uint16_t>({0x3c00, 0xc000}) + raw({2.5f}));
    const TensorArchive archive = parse(text);
    const TensorView& b = archive.at("b", {1});
    EXPECT_EQ(reinterpret_cast<std::uintptr_t>(b.data) % 4, 0u);
    EXPECT_EQ(*reinterpret_cast<const float*>(b.data), 2.5f);
  }
}

TEST(Safetensors, ToleratesOtherTypesUntilAskedFor) {
  const std::string text = file_of(R"({"mask":{"dtype":"BOOL","shape":[2,2],"data_offsets":[0,4]},)"
                                   R"("x":{"dtype":"BF16","shape":[2],"data_offsets":[4,8]}})",
                                   std::string(8, '\0'));
  const TensorArchive archive = parse(text);
  EXPECT_NE(archive.find("x"), nullptr);
  EXPECT_THAT(error_of([&] { archive.find("mask"); }),
              AllOf(HasSubstr("t.st: tensor mask"), HasSubstr("F32, F16 or BF16"), HasSubstr("BOOL")));
}

TEST(Safetensors, NamesMissingTensorsAndWrongShapes) {
  const std::string text = file_of(kTwo, "12345678");
  const TensorArchive archive = parse(text);
  EXPECT_THAT(error_of([&] { archive.at("lm_head.weight", {2}); }),
              AllOf(HasSubstr("t.st"), HasSubstr("lm_head.weight"), HasSubstr("missing")));
  EXPECT_THAT(error_of([&] {
                archive.at("a", {1, 2});
              }),
              AllOf(HasSubstr("tensor a"), HasSubstr("expected shape [1, 2], found [2, 1]")));
}

TEST(Safetensors, RefusesBadHeaderLengths) {
  EXPECT_THAT(error_of([] { parse(""); }), HasSubstr("0 bytes"));
  EXPECT_THAT(error_of([] { parse("1234567"); }), HasSubstr("7 bytes"));
  EXPECT_THAT(error_of([] { parse(file_of("{}", "", 3)); }), HasSubstr("header length of 3"));
  EXPECT_THAT(error_of([] { parse(file_of("{}", "", UINT64_MAX)); }), HasSubstr("18446744073709551615"));
  EXPECT_THAT(error_of([] { parse(file_of("{}", std::string(100'000'100, ' '), 100'000'001)); }),
              HasSubstr("100000001"));
  EXPECT_THAT(error_of([] { parse(file_of("not json", "")); }), HasSubstr("not valid JSON"));
  EXPECT_THAT(error_of([] { parse(file_of("[1]", "")); }), HasSubstr("expected an object"));
  EXPECT_THAT(error_of([] { parse(file_of(std::string(90000, '['), "")); }), HasSubstr("nested deeper"));
  EXPECT_EQ(error_of([] { parse(file_of("{}", "")); }), "no error");
}

TEST(Safetensors, RefusesTruncatedData) {
  const std::string whole = file_of(kTwo, "12345678");
  EXPECT_EQ(error_of([&] { parse(whole); }), "no error");
  for (std::size_t keep = 0; keep < whole.size(); ++keep)
    EXPECT_NE(error_of([&] { parse(whole.substr(0, keep)); }), "no error") << keep;
  EXPECT_THAT(error_of([&] { parse(whole.substr(0, whole.size() - 1)); }),
              AllOf(HasSubstr("tensor b"), HasSubstr("7 bytes of data")));
  EXPECT_THAT(error_of([&] { parse(whole + "x"); }), HasSubstr("expected 8 bytes of data"));
}

TEST(Safetensors, RefusesOverlapsHolesAndDisorder) {
  const auto two = [](const std::string& a, const std::string& b) {
    return header_error(R"({"a":{"dtype":"U8","shape":[4],"data_offsets":)" + a +
                        R"(},"b":{"dtype":"U8","shape":[4],"data_offsets":)" + b + "}}");
  };
  EXPECT_EQ(two("[0,4]", "[4,8]"), "no error");
  EXPECT_EQ(two("[4,8]", "[0,4]"), "no error");
  EXPECT_THAT(two("[0,4]", "[3,7]"), AllOf(HasSubstr("tensor b"), HasSubstr("overlap")));
  EXPECT_THAT(two("[0,4]", "[0,4]"), HasSubstr("overlap"));
  EXPECT_THAT(header_error(R"({"a":{"dtype":"U8","shape":[3],"data_offsets":[0,3]},)"
                           R"("b":{"dtype":"U8","shape":[4],"data_offsets":[4,8]}})"),
              AllOf(HasSubstr("tensor b"), HasSubstr("a hole")));
  EXPECT_THAT(two("[4,0]", "[4,8]"), AllOf(HasSubstr("tensor a"), HasSubstr("in order")));
  EXPECT_THAT(two("[0,4]", "[9,13]"), AllOf(HasSubstr("tensor b"), HasSubstr("truncated")));
  EXPECT_THAT(two("[0,4]", "[4,9223372036854775807]"), HasSubstr("truncated"));
  EXPECT_THAT(two("[0,4]", "[-4,0]"), HasSubstr("b.data_offsets[0]"));
  EXPECT_THAT(two("[0,4]", "[4,8,8]"), HasSubstr("b.data_offsets"));
  EXPECT_THAT(two("[0,4]", "[4,1e300]"), HasSubstr("b.data_offsets[1]"));
}

TEST(Safetensors, RefusesShapesThatDoNotFit) {
  const auto one = [](const std::string& dtype, const std::string& shape) {
    return header_error(R"({"a":{"dtype":")" + dtype + R"(","shape":)" + shape +
                        R"(,"data_offsets":[0,8]}})");
  };
  EXPECT_EQ(one("F32", "[2]"), "no error");
  EXPECT_EQ(one("F64", "[]"), "no error");
  EXPECT_THAT(one("F32", "[3]"),
              AllOf(HasSubstr("tensor a"), HasSubstr("expected 12 bytes"), HasSubstr("found 8")));
  EXPECT_THAT(one("F16", "[2]"), HasSubstr("expected 4 bytes"));
  EXPECT_THAT(one("F32", "[4294967296,4294967296]"), HasSubstr("too large"));
  EXPECT_THAT(one("F32", "[4611686018427387904]"), HasSubstr("too large"));
  EXPECT_THAT(one("F32", "[-2]"), HasSubstr("a.shape[0]"));
  EXPECT_THAT(one("F32", "[2.0]"), HasSubstr("a.shape[0]"));
  EXPECT_THAT(one("F32", "[18446744073709551615]"), HasSubstr("a.shape[0]"));
  EXPECT_THAT(one("F32", "[1,1,1,1,1,1,1,1,1,1,1,1,1,1,1,1,2]"), HasSubstr("at most 16"));
  EXPECT_THAT(one("F32", "{}"), HasSubstr("a.shape"));
  EXPECT_THAT(header_error(R"({"a":{"shape":[2],"data_offsets":[0,8]}})"), HasSubstr("a.dtype"));
  EXPECT_THAT(header_error(R"({"a":7})"), HasSubstr("a: expected an object"));
}

TEST(Safetensors, RefusesDuplicateNames) {
  EXPECT_THAT(header_error(R"({"a":{"dtype":"U8","shape":[4],"data_offsets":[0,4]},)"
                           R"("a":{"dtype":"U8","shape":[4],"data_offsets":[4,8]}})"),
              AllOf(HasSubstr("\"a\""), HasSubstr("twice")));
  // A name may return inside another object.
  EXPECT_EQ(header_error(R"({"dtype":{"dtype":"U8","shape":[8],"data_offsets":[0,8]}})"), "no error");
}

TEST(Safetensors, KeepsHostileNamesOnOneLine) {
  const std::string error =
      header_error(R"({"a\nb\u0007":{"dtype":"F32","shape":[3],"data_offsets":[0,8]}})");
  EXPECT_THAT(error, HasSubstr("tensor a?b?"));
}

TEST(Safetensors, ReadsShardsAndHashesThemLikeOneFile) {
  const Folder folder;
  folder.write("x-1.safetensors",
               file_of(R"({"a":{"dtype":"F32","shape":[1],"data_offsets":[0,4]}})", "1234"));
  folder.write("x-2.safetensors",
               file_of(R"({"b":{"dtype":"F32","shape":[1],"data_offsets":[0,4]}})", "5678"));
  folder.write("model.safetensors.index.json",
               R"({"metadata":{},"weight_map":{"a":"x-1.safetensors","b":"x-2.safetensors"}})");
  const TensorArchive sharded = TensorArchive::open_folder(folder.path);
  EXPECT_THAT(sharded.names(), ElementsAre("a", "b"));
  EXPECT_EQ(std::memcmp(sharded.at("b", {1}).data, "5678", 4), 0);

  const std::string whole = file_of(R"({"a":{"dtype":"F32","shape":[1],"data_offsets":[0,4]},)"
                                    R"("b":{"dtype":"F32","shape":[1],"data_offsets":[4,8]}})",
                                    "12345678");
  EXPECT_EQ(sharded.hash(), parse(whole).hash());
  // Expected value computed with Python's xxhash.xxh3_128 over "a\nF32\n1\n1234b\nF32\n1\n5678".
  EXPECT_EQ(sharded.hash(), "xxh3:8ea8a26a1abcb318408d49b95b9f7f4d");
  folder.write("model.safetensors", whole);
  EXPECT_EQ(TensorArchive::open_folder(folder.path).hash(), sharded.hash());
}

TEST(Safetensors, HashSeesNamesTypesShapesAndData) {
  const auto hash = [](const std::string& name, const std::string& dtype, const std::string& shape,
                       const std::string& data) {
    const std::string text = file_of(
        "{\"" + name + R"(":{"dtype":")" + dtype + R"(","shape":)" + shape + R"(,"data_offsets":[0,4]}})",
        data);
    return parse(text).hash();
  };
  const std::string base = hash("a", "F16", "[2]", "1234");
  EXPECT_EQ(base, hash("a", "F16", "[2]", "1234"));
  EXPECT_NE(base, hash("b", "F16", "[2]", "1234"));
  EXPECT_NE(base, hash("a", "BF16", "[2]", "1234"));
  EXPECT_NE(base, hash("a", "F16", "[2,1]", "1234"));
  EXPECT_NE(base, hash("a", "F16", "[2]", "1235"));
}

TEST(Safetensors, RefusesBadIndexes) {
  const Folder folder;
  const auto index_error = [&](const std::string& weight_map) {
    folder.write("model.safetensors.index.json", R"({"weight_map":)" + weight_map + "}");
    return error_of([&] { TensorArchive::open_folder(folder.path); });
  };
  folder.write("x.safetensors", file_of(R"({"a":{"dtype":"F32","shape":[1],"data_offsets":[0,4]}})", "1234"));
  EXPECT_EQ(index_error(R"({"a":"x.safetensors"})"), "no error");
  EXPECT_THAT(index_error(R"({"a":"y.safetensors"})"),
              AllOf(HasSubstr("index.json"), HasSubstr("y.safetensors"), HasSubstr("no such file")));
  EXPECT_THAT(index_error(R"({"b":"x.safetensors"})"),
              AllOf(HasSubstr("x.safetensors: tensor b"), HasSubstr("no such tensor")));
  for (const char* path : {"../x.safetensors", "/etc/passwd", "s/../../x.safetensors", ""})
    EXPECT_THAT(index_error(R"({"a":")" + std::string(path) + "\"}"), HasSubstr("inside the model's folder"))
        << path;
  EXPECT_THAT(index_error(R"({"a":"x.safetensors\u0000y"})"), HasSubstr("inside the model's folder"));
  EXPECT_THAT(index_error(R"({"a":"."})"), HasSubstr("regular file"));
  EXPECT_THAT(index_error(R"({"a":7})"), HasSubstr("weight_map.a: expected a string"));
  EXPECT_THAT(index_error(R"([])"), HasSubstr("weight_map"));
  EXPECT_THAT(index_error(R"({"a":"x.safetensors","a":"x.safetensors"})"), HasSubstr("twice"));
}

TEST(Safetensors, SaysWhatAFolderLacks) {
  const Folder folder;
  EXPECT_THAT(error_of([&] { TensorArchive::open_folder(folder.path); }),
              AllOf(HasSubstr(folder.path), HasSubstr("neither")));
  folder.write("pytorch_model.bin", "x");
  EXPECT_THAT(error_of([&] { TensorArchive::open_folder(folder.path); }), HasSubstr("pytorch_model.bin"));
}

template <class T>
std::string finite_error(DType dtype, std::vector<T> values) {
  const TensorView view{.name = "w",
                        .dtype = dtype,
                        .shape = {static_cast<int64_t>(values.size())},
                        .data = std::as_bytes(std::span(values)).data(),
                        .bytes = static_cast<int64_t>(values.size() * sizeof(T)),
                        .file = "m.safetensors"};
  return error_of([&] { check_finite(view); });
}

TEST(Safetensors, FindsTheFirstNonFiniteWeight) {
  std::vector<float> values(10000, 3e38f);
  EXPECT_EQ(finite_error(DType::kF32, values), "no error");
  values[9998] = INFINITY;
  EXPECT_THAT(finite_error(DType::kF32, values),
              AllOf(HasSubstr("m.safetensors: tensor w"), HasSubstr("element 9998")));
  values[4096] = NAN;
  EXPECT_THAT(finite_error(DType::kF32, values), HasSubstr("element 4096"));
  // The largest finite numbers pass; infinities of either sign do not.
  EXPECT_EQ(finite_error<uint16_t>(DType::kF16, {0x7bff, 0xfbff}), "no error");
  EXPECT_THAT(finite_error<uint16_t>(DType::kF16, {0, 0xfc00}), HasSubstr("element 1"));
  EXPECT_EQ(finite_error<uint16_t>(DType::kBF16, {0x7f7f, 0x7c00}), "no error");
  EXPECT_THAT(finite_error<uint16_t>(DType::kBF16, {0x7f80}), HasSubstr("element 0"));
}

}  // namespace
}  // namespace kva
