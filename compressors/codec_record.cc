#include "compressors/codec_record.h"

#include <fmt/format.h>

#include <algorithm>
#include <cmath>
#include <nlohmann/json.hpp>

#include "compressors/codecs/codebook_codec.h"
#include "compressors/codecs/fp8_codec.h"
#include "compressors/codecs/front_dense_codec.h"
#include "compressors/codecs/hadamard_codec.h"
#include "compressors/codecs/lowrank_codec.h"
#include "compressors/codecs/minicache_codec.h"
#include "compressors/codecs/pq_codec.h"
#include "compressors/codecs/quant_codec.h"
#include "compressors/codecs/residual_codec.h"
#include "compressors/codecs/rotation_codec.h"
#include "compressors/codecs/zstd_codec.h"
#include "kernels/check.h"

namespace kva {
namespace {

constexpr int64_t kMostTokens = 1024;   // of a page
constexpr int64_t kMostWidth = 0xffff;  // of a token
constexpr double kMostOutliers = 0.5;

// A record with what it refers to.
class Record {
 public:
  Record(const JsonNode& node, std::span<const ReadCodec> earlier,
         std::span<const std::shared_ptr<const SideArray>> arrays)
      : node_(node) {
    if (const auto list = node.find("inner"))
      for (int64_t i = 0; i < list->size(); ++i)
        inner_.push_back(
            earlier[static_cast<std::size_t>(index(list->at(i), static_cast<int64_t>(earlier.size())))]);
    if (const auto list = node.find("arrays"))
      for (int64_t i = 0; i < list->size(); ++i)
        arrays_.push_back(
            arrays[static_cast<std::size_t>(index(list->at(i), static_cast<int64_t>(arrays.size())))]);
    for (const ReadCodec& codec : inner_) depth_ = std::max(depth_, codec.depth + 1);
    if (depth_ > kDeepestCodec) node.fail(fmt::format("at most {} codecs inside one another", kDeepestCodec));
  }

  int depth() const { return depth_; }
  int64_t integer(const char* key, int64_t min, int64_t max) const { return node_.at(key).as_int(min, max); }
  bool flag(const char* key) const { return integer(key, 0, 1) == 1; }
  double share(const char* key, double most) const { return node_.at(key).as_number(0.0, most); }
  int bits() const {
    const auto bits = static_cast<int>(integer("bits", 2, 8));
    if (bits > 4 && bits < 8) node_.at("bits").fail("2, 3, 4 or 8");
    return bits;
  }
  ScaleAxis axis() const { return flag("by_channel") ? ScaleAxis::kChannel : ScaleAxis::kToken; }
  std::string text(const char* key) const { return node_.at(key).as_string(); }

  // The one codec inside.
  std::shared_ptr<const SideCodec> inner() const {
    if (inner_.size() != 1) node_.fail("a codec with one other inside");
    return inner_.front().codec;
  }
  // The same, for those that read it in the model's coordinates.
  std::shared_ptr<const SideCodec> inner_without_coordinates() const {
    if (inner()->has_coordinates()) node_.fail("a codec inside that has no coordinates of its own");
    return inner();
  }
  // The one array.
  std::shared_ptr<const SideArray> array(int64_t bytes) const {
    if (arrays_.size() != 1 || arrays_.front()->bytes() != bytes)
      node_.fail(fmt::format("a codec with one array of {} bytes", bytes));
    return arrays_.front();
  }
  std::shared_ptr<const SideArray> array() const {
    if (arrays_.size() != 1) node_.fail("a codec with one array");
    return arrays_.front();
  }
  const JsonNode& node() const { return node_; }

 private:
  static int64_t index(const JsonNode& node, int64_t count) {
    if (count == 0) node.fail("no index: there is nothing before it");
    return node.as_int(0, count - 1);
  }

  const JsonNode& node_;
  std::vector<ReadCodec> inner_;
  std::vector<std::shared_ptr<const SideArray>> arrays_;
  int depth_ = 1;
};

using Codec = std::shared_ptr<const SideCodec>;

Codec read_quant(const Record& record) {
  return make_quant_codec({.bits = record.bits(),
                           .axis = record.axis(),
                           .group = record.integer("group", 0, kMostWidth),
                           .symmetric = record.flag("symmetric"),
                           .outliers = record.share("outliers", kMostOutliers),
                           .dense_channels = record.integer("dense_channels", 0, kMostWidth),
                           .norm_correct = record.flag("norm_correct"),
                           .for_keys = record.flag("for_keys")});
}

Codec read_codebook(const Record& record) {
  CodebookFormat format{.name = record.text("name"), .bits = record.bits(), .axis = record.axis()};
  format.outliers = record.share("outliers", kMostOutliers);
  format.for_keys = record.flag("for_keys");
  if (record.flag("by_length")) {
    format.scaling = CodebookFormat::Scaling::kLength;
    if (format.axis != ScaleAxis::kToken || format.outliers != 0.0)
      record.node().fail("levels by length for whole tokens without outliers");
  }
  return make_codebook_codec(format, record.array(int64_t{format.levels()} * 2));
}

Codec read_pq(const Record& record) {
  const PqShape shape{.width = record.integer("width", 1, kMostWidth),
                      .m = record.integer("m", 1, kMostTokens),
                      .bits = record.bits()};
  if (shape.width % shape.m != 0) record.node().at("m").fail("a divisor of the width");
  return make_pq_codec(shape, record.array(shape.width * shape.entries() * 2));
}

Codec read_rotation(const Record& record) {
  return make_rotation_codec(
      record.inner_without_coordinates(), record.array(),
      record.flag("turned_back") ? TurnedReading::kTurnedBack : TurnedReading::kTurned);
}

std::shared_ptr<const LowRankBasis> read_basis(const Record& record) {
  const int64_t rank = record.integer("rank", 1, kMostWidth);
  const int64_t cells = record.integer("cells", 1, kMostWidth);
  const auto array = record.array();
  const int64_t width = array->bytes() / (rank * cells * 2);
  if (width < 1 || width > kMostWidth || width * rank * cells * 2 != array->bytes())
    record.node().fail("a basis of whole cells");
  return std::make_shared<const LowRankBasis>(array, rank, cells);
}

Codec read_lowrank(const Record& record) {
  const auto basis = read_basis(record);
  if (basis->cells() != 1) record.node().at("cells").fail("1");
  return basis->codec(record.inner());
}

Codec read_lowrank_part(const Record& record) {
  const auto basis = read_basis(record);
  return basis->part_codec(record.integer("cell", 0, basis->cells() - 1));
}

Codec read_zstd(const Record& record) {
  constexpr int64_t kMostPayload = int64_t{1} << 28;  // of a page: more than any codec makes
  const ZstdShape shape{.bytes = record.integer("bytes", kZstdClassBytes, kMostPayload),
                        .raw_bytes = record.integer("raw_bytes", 1, kMostPayload),
                        .planes = record.flag("planes")};
  if (shape.planes && shape.bytes < 4 + (shape.raw_bytes + 1) / 2)
    record.node().fail("room for the even bytes");
  return make_zstd_codec(record.inner(), shape);
}

struct Kind {
  const char* name;
  Codec (*read)(const Record& record);
};

template <DType kType>
Codec read_dense(const Record&) {
  return make_dense_codec(kType);
}

template <Fp8 kType>
Codec read_fp8(const Record&) {
  return make_fp8_codec(kType);
}

constexpr Kind kKinds[] = {
    {"codebook", read_codebook},
    {"dense(bf16)", read_dense<DType::kBF16>},
    {"dense(f16)", read_dense<DType::kF16>},
    {"dense(f32)", read_dense<DType::kF32>},
    {"dense(fp8_e4m3)", read_fp8<Fp8::kE4M3>},
    {"dense(fp8_e5m2)", read_fp8<Fp8::kE5M2>},
    {"front",
     [](const Record& record) {
       return make_front_dense_codec(record.integer("tokens", 0, INT32_MAX),
                                     record.inner_without_coordinates());
     }},
    {"hadamard", [](const Record& record) { return make_hadamard_codec(record.inner()); }},
    {"lowrank", read_lowrank},
    {"lowrank part", read_lowrank_part},
    {"minicache", [](const Record& record) { return make_minicache_codec(record.share("retain", 1.0)); }},
    {"pq", read_pq},
    {"quant", read_quant},
    {"residual",
     [](const Record& record) {
       return make_residual_codec(record.integer("rank", 0, kMostWidth), record.inner_without_coordinates());
     }},
    {"rotation", read_rotation},
    {"zstd", read_zstd},
};

}  // namespace

nlohmann::ordered_json codec_record_json(const SideCodec& codec, std::span<const int64_t> inner,
                                         std::span<const int64_t> arrays) {
  const CodecSpec spec = codec.spec();
  KVA_CHECK(!spec.kind.empty(), "a codec for files");
  nlohmann::ordered_json json = {{"kind", spec.kind}, {"name", codec.name()}};
  for (const auto& [name, number] : spec.numbers) {
    if (number == std::floor(number) && std::abs(number) < 0x1p53)
      json[name] = static_cast<int64_t>(number);
    else
      json[name] = number;
  }
  if (!inner.empty()) json["inner"] = inner;
  if (!arrays.empty()) json["arrays"] = arrays;
  return json;
}

ReadCodec read_codec(const JsonNode& node, std::span<const ReadCodec> earlier,
                     std::span<const std::shared_ptr<const SideArray>> arrays) {
  const std::string name = node.at("kind").as_string();
  const auto* kind = std::find_if(std::begin(kKinds), std::end(kKinds),
                                  [&](const Kind& known) { return known.name == name; });
  if (kind == std::end(kKinds))
    node.at("kind").fail("a kind of codec that this program knows; a newer kvanalyze may");
  const Record record(node, earlier, arrays);
  return {kind->read(record), record.depth()};
}

}  // namespace kva
