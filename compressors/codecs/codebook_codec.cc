#include "compressors/codecs/codebook_codec.h"

#include <fmt/format.h>

#include <algorithm>
#include <cmath>
#include <utility>
#include <vector>

#include "compressors/codecs/outliers.h"
#include "kernels/check.h"
#include "kernels/convert.h"
#include "kernels/fetch.h"
#include "kernels/packed.h"
#include "kernels/sparse.h"
#include "runtime/error.h"

namespace kva {
namespace {

constexpr float kLargestHalf = 65504.0f;

float rounded(double value) { return f32_from_f16(f16_from_f32(static_cast<float>(value))); }

// A vector's numbers are offset + scale * level; both as they are stored.
struct Affine {
  std::vector<float> scales;
  std::vector<float> offsets;
};

int64_t vectors_of(ScaleAxis axis, int64_t tokens, int64_t width) {
  if (axis == ScaleAxis::kToken) return tokens;
  return tokens > 0 ? width : 0;
}

std::size_t vector_at(ScaleAxis axis, int64_t token, int64_t channel) {
  return static_cast<std::size_t>(axis == ScaleAxis::kToken ? token : channel);
}

void check_numbers(MatView<const float> rows, float largest) {
  for (int64_t t = 0; t < rows.rows; ++t)
    for (int64_t c = 0; c < rows.cols; ++c)
      if (!(std::abs(rows.at(t, c)) <= largest))
        throw InputError(
            fmt::format("token {}: expected finite numbers within f16, found {}", t, rows.at(t, c)));
}

// A page that is scaled by its vectors' ranges: what of it is taken out, and the ranges of the rest.
struct Ranges {
  std::vector<int64_t> outliers;  // places, ascending
  Affine affine;
};

// body(t, c) for the numbers of the page that are none of `outliers`, which are places, ascending.
template <class Body>
void each_inlier(MatView<const float> rows, const std::vector<int64_t>& outliers, const Body& body) {
  auto next = outliers.begin();
  for (int64_t t = 0, at = 0; t < rows.rows; ++t)
    for (int64_t c = 0; c < rows.cols; ++c, ++at)
      if (next != outliers.end() && *next == at)
        ++next;
      else
        body(t, c);
}

Ranges ranges_of(const CodebookFormat& format, MatView<const float> rows) {
  const ScaleAxis axis = format.axis;
  Ranges result;
  result.outliers =
      farthest_numbers(rows, axis, std::max<int64_t>(1, axis == ScaleAxis::kToken ? rows.cols : rows.rows),
                       outlier_count(format.outliers, rows.rows * rows.cols));
  const auto count = static_cast<std::size_t>(vectors_of(axis, rows.rows, rows.cols));
  std::vector<float> low(count, kLargestHalf), high(count, -kLargestHalf);
  each_inlier(rows, result.outliers, [&](int64_t t, int64_t c) {
    const std::size_t v = vector_at(axis, t, c);
    low[v] = std::min(low[v], rows.at(t, c));
    high[v] = std::max(high[v], rows.at(t, c));
  });
  for (std::size_t v = 0; v < count; ++v) {
    const bool empty = low[v] > high[v];
    result.affine.scales.push_back(empty ? 0.0f : rounded(0.5 * (double{high[v]} - low[v])));
    result.affine.offsets.push_back(empty ? 0.0f : rounded(0.5 * (double{high[v]} + low[v])));
  }
  return result;
}

// Where the number lies in its vector's range, in [-1, 1] but for rounding.
float place_in(const Affine& affine, std::size_t vector, float value) {
  const float scale = affine.scales[vector];
  return scale > 0.0f ? (value - affine.offsets[vector]) / scale : 0.0f;
}

class CodebookCodec : public SideCodec {
 public:
  CodebookCodec(const CodebookFormat& format, std::shared_ptr<const SideArray> codebook)
      : format_(format), codebook_(std::move(codebook)) {
    KVA_CHECK(codebook_->bytes() == int64_t{format.levels()} * 2, "a codebook of the format");
    KVA_CHECK(!by_length() || (format.axis == ScaleAxis::kToken && format.outliers == 0.0),
              "tokens have a length");
  }

  std::string name() const override { return format_.name; }

  int64_t bytes(int64_t tokens, int64_t width) const override {
    return scale_bytes(tokens, width) + shape(tokens, width).code_bytes();
  }
  int64_t scale_bytes(int64_t tokens, int64_t width) const override {
    return vectors_of(format_.axis, tokens, width) * (by_length() ? 2 : 4) +
           outlier_bytes(outliers(tokens, width), tokens * width);
  }

  void encode(MatView<const float> rows, const SideData&, std::byte* payload) const override {
    const std::vector<float> levels = read_levels();
    std::vector<float> borders;
    for (std::size_t i = 1; i < levels.size(); ++i) borders.push_back(0.5f * (levels[i - 1] + levels[i]));
    std::vector<uint8_t> codes(static_cast<std::size_t>(rows.rows * rows.cols));
    const Ranges coded =
        by_length() ? code_by_length(rows, levels, borders, codes) : code_by_range(rows, borders, codes);
    const auto vectors = static_cast<int64_t>(coded.affine.scales.size());
    from_f32(coded.affine.scales.data(), DType::kF16, payload, vectors);
    if (!by_length()) {
      from_f32(coded.affine.offsets.data(), DType::kF16, payload + vectors * 2, vectors);
      write_outliers(rows, coded.outliers, payload + vectors * 4);
    }
    pack_codes(codes, shape(rows.rows, rows.cols), payload + scale_bytes(rows.rows, rows.cols));
  }

  int64_t decode_scratch(int64_t tokens, int64_t width) const override {
    return scratch_of(1, tokens, width);
  }

  void decode(const SideData& side, float* scratch, MatView<float> rows) const override {
    const PackedPage packed = page(side, rows.rows, rows.cols, scratch);
    packed_decode(packed, scratch, rows);
    if (!by_length())
      restore_outliers(outlier_list(side.payload, rows.rows, rows.cols), outliers(rows.rows, rows.cols),
                       rows);
  }

  int64_t scratch_values(int64_t queries, int64_t tokens, int64_t width) const override {
    return scratch_of(queries, tokens, width);
  }
  void scores(MatView<const float> queries, const SideData& side, float* scratch,
              MatView<float> scores) const override {
    const PackedPage packed = page(side, scores.cols, queries.cols, scratch);
    packed_scores(queries, packed, scratch, scores);
    if (outliers(packed.tokens, packed.width) > 0)
      sparse_scores(queries, outliers_of(side.payload, packed, scratch), scores);
  }
  void accumulate(MatView<const float> weights, const SideData& side, float* scratch,
                  MatView<float> out) const override {
    const PackedPage packed = page(side, weights.cols, out.cols, scratch);
    packed_accumulate(weights, packed, scratch, out);
    if (outliers(packed.tokens, packed.width) > 0)
      sparse_accumulate(weights, outliers_of(side.payload, packed, scratch), out);
  }

  std::optional<SideFormat> device_format(int64_t tokens, int64_t width) const override;
  bool device_codes() const override { return true; }
  DeviceArrays device_arrays() const override { return {codebook_.get()}; }

  CodecSpec spec() const override {
    return {.kind = "codebook",
            .numbers = {{"bits", format_.bits},
                        {"by_channel", format_.axis == ScaleAxis::kChannel ? 1 : 0},
                        {"by_length", by_length() ? 1 : 0},
                        {"outliers", format_.outliers},
                        {"for_keys", format_.for_keys ? 1 : 0}},
            .arrays = {bytes_of(*codebook_)}};
  }
  bool accepts(const SideData& side, int64_t tokens, int64_t width) const override {
    const int64_t lists = vectors_of(format_.axis, tokens, width) * 4;
    return by_length() || outliers_within(side.payload + lists, outliers(tokens, width), tokens * width);
  }

 private:
  int64_t outliers(int64_t tokens, int64_t width) const {
    return outlier_count(format_.outliers, tokens * width);
  }
  const std::byte* outlier_list(const std::byte* payload, int64_t tokens, int64_t width) const {
    return payload + vectors_of(format_.axis, tokens, width) * 4;
  }

  // Levels, and what the packed page or, once that is through, the outliers want.
  int64_t scratch_of(int64_t queries, int64_t tokens, int64_t width) const {
    const int64_t beside =
        2 * vectors_of(format_.axis, tokens, width) + outlier_scratch(outliers(tokens, width));
    return format_.levels() + std::max(packed_scratch(queries, shape(tokens, width)), beside);
  }

  PackedPage shape(int64_t tokens, int64_t width) const {
    return {.bits = format_.bits,
            .tokens = tokens,
            .width = width,
            .axis = format_.axis,
            .group = std::max<int64_t>(1, format_.axis == ScaleAxis::kToken ? width : tokens),
            .by_channel = format_.for_keys && no_larger_by_channel(format_.bits, tokens, width)};
  }

  // The levels go to the front of the scratch, which moves on.
  PackedPage page(const SideData& side, int64_t tokens, int64_t width, float*& scratch) const {
    PackedPage result = shape(tokens, width);
    to_f32(codebook_->data(), DType::kF16, scratch, format_.levels());
    result.levels = std::exchange(scratch, scratch + format_.levels());
    const int64_t codes_at = scale_bytes(tokens, width);
    result.codes = side.payload + codes_at;
    result.scales = reinterpret_cast<const uint16_t*>(side.payload);
    if (!by_length()) result.zeros = result.scales + vectors_of(format_.axis, tokens, width);
    fetch(side.ahead, codes_at);
    if (side.ahead) result.ahead = side.ahead + codes_at;
    return result;
  }

  // An outlier has the lowest code, of the offset and the lowest level.
  SparseNumbers outliers_of(const std::byte* payload, const PackedPage& page, float* scratch) const {
    const int64_t vectors = page.scale_count();
    float* scales = scratch;
    float* coded = scales + vectors;
    to_f32(page.scales, DType::kF16, scales, vectors);
    to_f32(page.zeros, DType::kF16, coded, vectors);
    for (int64_t v = 0; v < vectors; ++v) coded[v] += scales[v] * page.levels[0];
    return read_outliers(outlier_list(payload, page.tokens, page.width), outliers(page.tokens, page.width),
                         page, coded, coded + vectors);
  }

  // codes: [tokens, width].
  static void pack_codes(std::vector<uint8_t>& codes, const PackedPage& page, std::byte* packed) {
    int64_t rows = page.tokens, cols = page.width;
    if (page.by_channel) {
      std::vector<uint8_t> turned(codes.size());
      for (int64_t c = 0; c < cols; ++c)
        for (int64_t t = 0; t < rows; ++t)
          turned[static_cast<std::size_t>(c * rows + t)] = codes[static_cast<std::size_t>(t * cols + c)];
      codes.swap(turned);
      std::swap(rows, cols);
    }
    for (int64_t r = 0; r < rows; ++r)
      pack_row(codes.data() + r * cols, page.bits, cols, packed + r * packed_row_bytes(page.bits, cols));
  }

  bool by_length() const { return format_.scaling == CodebookFormat::Scaling::kLength; }

  std::vector<float> read_levels() const {
    std::vector<float> levels(static_cast<std::size_t>(format_.levels()));
    to_f32(codebook_->data(), DType::kF16, levels.data(), format_.levels());
    return levels;
  }

  // Of two equally near levels the lower one.
  static uint8_t nearest(const std::vector<float>& borders, float number) {
    return static_cast<uint8_t>(std::lower_bound(borders.begin(), borders.end(), number) - borders.begin());
  }

  Ranges code_by_range(MatView<const float> rows, const std::vector<float>& borders,
                       std::vector<uint8_t>& codes) const {
    check_numbers(rows, kLargestHalf);
    Ranges ranges = ranges_of(format_, rows);
    std::size_t i = 0;
    for (int64_t t = 0; t < rows.rows; ++t)
      for (int64_t c = 0; c < rows.cols; ++c)
        codes[i++] = nearest(borders, place_in(ranges.affine, vector_at(format_.axis, t, c), rows.at(t, c)));
    for (const int64_t place : ranges.outliers) codes[static_cast<std::size_t>(place)] = 0;
    return ranges;
  }

  // The scale makes up for what the levels took from the token's length, or added.
  Ranges code_by_length(MatView<const float> rows, const std::vector<float>& levels,
                        const std::vector<float>& borders, std::vector<uint8_t>& codes) const {
    Ranges result;
    std::size_t i = 0;
    for (int64_t t = 0; t < rows.rows; ++t) {
      double squares = 0.0;
      for (int64_t c = 0; c < rows.cols; ++c) squares += double{rows.at(t, c)} * rows.at(t, c);
      const double deviation = std::sqrt(squares / static_cast<double>(rows.cols));
      double coded = 0.0;
      for (int64_t c = 0; c < rows.cols; ++c, ++i) {
        codes[i] = nearest(borders, deviation > 0.0 ? static_cast<float>(rows.at(t, c) / deviation) : 0.0f);
        coded += double{levels[codes[i]]} * levels[codes[i]];
      }
      const double scale = coded > 0.0 ? std::sqrt(squares / coded) : 0.0;
      if (!(scale <= kLargestHalf))
        throw InputError(fmt::format("token {}: expected finite numbers within f16, found a length of {}", t,
                                     std::sqrt(squares)));
      result.affine.scales.push_back(rounded(scale));
    }
    return result;
  }

  CodebookFormat format_;
  std::shared_ptr<const SideArray> codebook_;
};

SideKind kind_of(const PackedPage& page) {
  switch (page.bits) {
    case 8: return page.by_channel ? SideKind::kLevels8ByChannel : SideKind::kLevels8;
    case 4: return page.by_channel ? SideKind::kLevels4ByChannel : SideKind::kLevels4;
    case 3: return page.by_channel ? SideKind::kLevels3ByChannel : SideKind::kLevels3;
    default: return page.by_channel ? SideKind::kLevels2ByChannel : SideKind::kLevels2;
  }
}

std::optional<SideFormat> CodebookCodec::device_format(int64_t tokens, int64_t width) const {
  const auto offset = [](int64_t bytes) { return static_cast<int32_t>(bytes); };
  const PackedPage page = shape(tokens, width);
  const int64_t vectors = vectors_of(format_.axis, tokens, width);
  SideFormat side;
  side.kind = kind_of(page);
  side.scale_by_token = format_.axis == ScaleAxis::kToken;
  side.width = offset(width);
  side.tokens = offset(tokens);
  side.group = offset(page.group);
  side.groups = offset(page.groups());
  side.codes_at = offset(scale_bytes(tokens, width));
  side.scales_at = 0;
  if (!by_length()) side.zeros_at = offset(vectors * 2);
  side.outliers = offset(outliers(tokens, width));
  side.places_at = offset(vectors * 4);
  side.place_bits = outlier_place_bits(tokens * width);
  side.outlier_values_at = offset(side.codes_at - 2 * int64_t{side.outliers});
  side.bytes = offset(bytes(tokens, width));
  return side;
}

}  // namespace

std::shared_ptr<const SideCodec> make_codebook_codec(const CodebookFormat& format,
                                                     std::shared_ptr<const SideArray> codebook) {
  return std::make_shared<CodebookCodec>(format, std::move(codebook));
}

void add_scaled(const CodebookFormat& format, MatView<const float> rows, const float* weights,
                NumberHistogram& into) {
  KVA_CHECK(format.scaling == CodebookFormat::Scaling::kRange, "levels in a range");
  const Ranges ranges = ranges_of(format, rows);
  each_inlier(rows, ranges.outliers, [&](int64_t t, int64_t c) {
    const std::size_t v = vector_at(format.axis, t, c);
    if (ranges.affine.scales[v] <= 0.0f) return;  // any level stands for it
    into.add(std::clamp(place_in(ranges.affine, v, rows.at(t, c)), -1.0f, 1.0f), weights ? weights[t] : 1.0);
  });
}

}  // namespace kva
