#include "compressors/codecs/quant_codec.h"

#include <fmt/format.h>

#include <algorithm>
#include <cmath>
#include <cstring>
#include <numeric>
#include <utility>
#include <vector>

#include "compressors/codecs/outliers.h"
#include "kernels/convert.h"
#include "kernels/dtype.h"
#include "kernels/fetch.h"
#include "kernels/packed_encode.h"
#include "kernels/sparse.h"
#include "runtime/error.h"

namespace kva {
namespace {

constexpr float kMostF16 = 65504.0f;

// What of a payload is where, for one shape of page side.
struct Layout {
  Layout(const QuantFormat& format, int64_t tokens, int64_t width)
      : page{.bits = format.bits,
             .tokens = tokens,
             .width = width,
             .axis = format.axis,
             .group = format.group > 0
                          ? format.group
                          : std::max<int64_t>(1, format.axis == ScaleAxis::kToken ? width : tokens),
             .by_channel = format.for_keys && no_larger_by_channel(format.bits, tokens, width)},
        scales(page.scale_count()),
        channels(tokens > 0 ? std::min(format.dense_channels, width) : 0),
        kept(std::min(outlier_count(format.outliers, tokens * width), tokens * (width - channels))),
        zeros_at(scales * 2),
        codes_at(zeros_at + (format.symmetric ? 0 : scales * 2)),
        codes_end(codes_at + page.code_bytes()),
        kept_at(codes_end + codes_end % 2),
        channels_at(kept_at + outlier_bytes(kept, tokens * width)),
        channel_values_at(channels_at + channels * 2),
        factors_at(channel_values_at + channels * tokens * 2),
        end(factors_at + (format.norm_correct ? tokens * 2 : 0)) {
    if (end == kept_at) end = codes_end;
  }

  PackedPage page;   // without its payload
  int64_t scales;    // how many, and zeros where there are any
  int64_t channels;  // dense ones
  int64_t kept;      // outliers
  int64_t zeros_at;
  int64_t codes_at;
  int64_t codes_end;
  int64_t kept_at;
  int64_t channels_at;
  int64_t channel_values_at;
  int64_t factors_at;
  int64_t end;
};

class QuantCodec : public SideCodec {
 public:
  explicit QuantCodec(const QuantFormat& format) : format_(format) {}

  std::string name() const override {
    return fmt::format("quant(bits={}, by {})", format_.bits,
                       format_.axis == ScaleAxis::kToken ? "token" : "channel");
  }

  int64_t bytes(int64_t tokens, int64_t width) const override { return Layout(format_, tokens, width).end; }
  int64_t scale_bytes(int64_t tokens, int64_t width) const override {
    const Layout at(format_, tokens, width);
    return at.end - (at.codes_end - at.codes_at);
  }

  void encode(MatView<const float> rows, const SideData&, std::byte* payload) const override;

  int64_t decode_scratch(int64_t tokens, int64_t width) const override {
    return scratch_of(1, tokens, width);
  }

  void decode(const SideData& side, float* scratch, MatView<float> rows) const override {
    const Layout at(format_, rows.rows, rows.cols);
    packed_decode(page(at, side), scratch, rows);
    restore_outliers(side.payload + at.kept_at, at.kept, rows);
    for (int64_t i = 0; i < at.channels; ++i) {
      const float* values = dense_channel(at, side.payload, i, nullptr, scratch);
      for (int64_t t = 0; t < rows.rows; ++t) rows.at(t, channel(at, side.payload, i)) = values[t];
    }
    if (!format_.norm_correct) return;
    to_f32(side.payload + at.factors_at, DType::kF16, scratch, rows.rows);
    for (int64_t t = 0; t < rows.rows; ++t)
      for (int64_t c = 0; c < rows.cols; ++c) rows.at(t, c) *= scratch[t];
  }

  int64_t scratch_values(int64_t queries, int64_t tokens, int64_t width) const override {
    return (format_.norm_correct ? queries * tokens : 0) + scratch_of(queries, tokens, width);
  }

  void scores(MatView<const float> queries, const SideData& side, float* scratch,
              MatView<float> scores) const override {
    const Layout at(format_, scores.cols, queries.cols);
    const PackedPage packed = page(at, side);
    packed_scores(queries, packed, scratch, scores);
    const float* coded = coded_zeros(at, side.payload, scratch);
    if (at.kept > 0)
      sparse_scores(queries, read_outliers(side.payload + at.kept_at, at.kept, packed, coded, scratch),
                    scores);
    for (int64_t i = 0; i < at.channels; ++i) {
      const int64_t c = channel(at, side.payload, i);
      const float* values = dense_channel(at, side.payload, i, coded, scratch);
      for (int64_t q = 0; q < scores.rows; ++q)
        for (int64_t t = 0; t < scores.cols; ++t) scores.at(q, t) += queries.at(q, c) * values[t];
    }
    if (!format_.norm_correct) return;
    to_f32(side.payload + at.factors_at, DType::kF16, scratch, scores.cols);
    for (int64_t q = 0; q < scores.rows; ++q)
      for (int64_t t = 0; t < scores.cols; ++t) scores.at(q, t) *= scratch[t];
  }

  void accumulate(MatView<const float> weights, const SideData& side, float* scratch,
                  MatView<float> out) const override {
    const Layout at(format_, weights.cols, out.cols);
    const PackedPage packed = page(at, side);
    MatView<const float> factored = weights;
    if (format_.norm_correct) {
      const MatView<float> scaled(scratch, weights.rows, weights.cols);
      scratch += weights.rows * weights.cols;
      to_f32(side.payload + at.factors_at, DType::kF16, scratch, weights.cols);
      for (int64_t q = 0; q < weights.rows; ++q)
        for (int64_t t = 0; t < weights.cols; ++t) scaled.at(q, t) = weights.at(q, t) * scratch[t];
      factored = scaled;
    }
    packed_accumulate(factored, packed, scratch, out);
    const float* coded = coded_zeros(at, side.payload, scratch);
    if (at.kept > 0)
      sparse_accumulate(factored, read_outliers(side.payload + at.kept_at, at.kept, packed, coded, scratch),
                        out);
    for (int64_t i = 0; i < at.channels; ++i) {
      const int64_t c = channel(at, side.payload, i);
      const float* values = dense_channel(at, side.payload, i, coded, scratch);
      for (int64_t q = 0; q < out.rows; ++q)
        for (int64_t t = 0; t < factored.cols; ++t) out.at(q, c) += factored.at(q, t) * values[t];
    }
  }

  std::optional<SideFormat> device_format(int64_t tokens, int64_t width) const override;
  bool device_codes() const override { return true; }

  CodecSpec spec() const override {
    return {.kind = "quant",
            .numbers = {{"bits", format_.bits},
                        {"by_channel", format_.axis == ScaleAxis::kChannel ? 1 : 0},
                        {"group", static_cast<double>(format_.group)},
                        {"symmetric", format_.symmetric ? 1 : 0},
                        {"outliers", format_.outliers},
                        {"dense_channels", static_cast<double>(format_.dense_channels)},
                        {"norm_correct", format_.norm_correct ? 1 : 0},
                        {"for_keys", format_.for_keys ? 1 : 0}}};
  }
  bool accepts(const SideData& side, int64_t tokens, int64_t width) const override {
    const Layout at(format_, tokens, width);
    const auto* channels = reinterpret_cast<const uint16_t*>(side.payload + at.channels_at);
    return outliers_within(side.payload + at.kept_at, at.kept, tokens * width) &&
           std::all_of(channels, channels + at.channels, [&](uint16_t channel) { return channel < width; });
  }

 private:
  // Of the packed numbers; or, once those are through, of what is kept beside them.
  int64_t scratch_of(int64_t queries, int64_t tokens, int64_t width) const {
    const Layout at(format_, tokens, width);
    const int64_t beside = at.scales + std::max(outlier_scratch(at.kept), tokens);
    return std::max(packed_scratch(queries, at.page), beside);
  }

  PackedPage page(const Layout& at, const SideData& side) const {
    PackedPage result = at.page;
    result.codes = side.payload + at.codes_at;
    result.scales = reinterpret_cast<const uint16_t*>(side.payload);
    if (!format_.symmetric) result.zeros = reinterpret_cast<const uint16_t*>(side.payload + at.zeros_at);
    fetch(side.ahead, at.codes_at);
    if (side.ahead) {
      result.ahead = side.ahead + at.codes_at;
      fetch(side.ahead + at.codes_end, at.end - at.codes_end);
    }
    return result;
  }

  // What the codes of numbers kept beside them decode to, by group: the zeros, in `scratch`, which moves on.
  // Null: 0, or there are none.
  const float* coded_zeros(const Layout& at, const std::byte* payload, float*& scratch) const {
    if (format_.symmetric || at.kept + at.channels == 0) return nullptr;
    to_f32(payload + at.zeros_at, DType::kF16, scratch, at.scales);
    return std::exchange(scratch, scratch + at.scales);
  }

  // Damaged indices stay within the page side.
  static int64_t channel(const Layout& at, const std::byte* payload, int64_t i) {
    uint16_t index;
    std::memcpy(&index, payload + at.channels_at + i * 2, sizeof(index));
    return std::min<int64_t>(index, at.page.width - 1);
  }

  // The numbers of the i-th dense channel, less what their codes decode to, in `into`.
  static const float* dense_channel(const Layout& at, const std::byte* payload, int64_t i, const float* coded,
                                    float* into) {
    const int64_t tokens = at.page.tokens;
    to_f32(payload + at.channel_values_at + i * tokens * 2, DType::kF16, into, tokens);
    if (!coded) return into;
    const int64_t c = channel(at, payload, i);
    for (int64_t t = 0; t < tokens; ++t) into[t] -= coded[at.page.scale_of(t, c)];
    return into;
  }

  std::vector<uint16_t> widest_channels(MatView<const float> rows) const;
  std::vector<uint8_t> write_kept(MatView<const float> rows, const Layout& at, std::byte* payload) const;
  void write_factors(MatView<const float> rows, const Layout& at, std::byte* payload) const;

  QuantFormat format_;
};

[[noreturn]] void refuse(MatView<const float> rows) {
  for (int64_t t = 0; t < rows.rows; ++t)
    for (int64_t c = 0; c < rows.cols; ++c)
      if (!(std::abs(rows.at(t, c)) <= kMostF16))
        throw InputError(
            fmt::format("token {}, channel {}: quant expected a finite number within f16, found {}", t, c,
                        rows.at(t, c)));
  KVA_CHECK(false, "refused numbers that are all within f16");
}

std::vector<uint16_t> QuantCodec::widest_channels(MatView<const float> rows) const {
  std::vector<float> range(static_cast<std::size_t>(rows.cols));
  for (int64_t c = 0; c < rows.cols; ++c) {
    float low = rows.at(0, c);
    float high = low;
    for (int64_t t = 1; t < rows.rows; ++t) {
      low = std::min(low, rows.at(t, c));
      high = std::max(high, rows.at(t, c));
    }
    range[static_cast<std::size_t>(c)] = high - low;
  }
  std::vector<uint16_t> order(static_cast<std::size_t>(rows.cols));
  std::iota(order.begin(), order.end(), uint16_t{0});
  std::stable_sort(order.begin(), order.end(), [&](uint16_t a, uint16_t b) { return range[a] > range[b]; });
  order.resize(static_cast<std::size_t>(std::min(format_.dense_channels, rows.cols)));
  std::sort(order.begin(), order.end());
  return order;
}

// Which numbers are kept beside the codes, by place; empty where none are.
std::vector<uint8_t> QuantCodec::write_kept(MatView<const float> rows, const Layout& at,
                                            std::byte* payload) const {
  std::vector<uint8_t> kept;
  if (at.channels + at.kept == 0) return kept;
  kept.resize(static_cast<std::size_t>(rows.rows * rows.cols), 0);
  if (at.channels > 0) {
    const std::vector<uint16_t> channels = widest_channels(rows);
    std::memcpy(payload + at.channels_at, channels.data(), channels.size() * 2);
    std::byte* values = payload + at.channel_values_at;
    for (const uint16_t c : channels) {
      for (int64_t t = 0; t < rows.rows; ++t, values += 2) {
        from_f32(&rows.at(t, c), DType::kF16, values, 1);
        kept[static_cast<std::size_t>(t * rows.cols + c)] = 1;
      }
    }
  }
  if (at.kept == 0) return kept;
  const std::vector<int64_t> outliers =
      farthest_numbers(rows, format_.axis, at.page.group, at.kept, at.channels > 0 ? kept.data() : nullptr);
  write_outliers(rows, outliers, payload + at.kept_at);
  for (const int64_t place : outliers) kept[static_cast<std::size_t>(place)] = 1;
  return kept;
}

void QuantCodec::write_factors(MatView<const float> rows, const Layout& at, std::byte* payload) const {
  std::fill_n(reinterpret_cast<uint16_t*>(payload + at.factors_at), rows.rows, f16_from_f32(1.0f));
  std::vector<float> decoded(static_cast<std::size_t>(rows.rows * rows.cols));
  std::vector<float> scratch(static_cast<std::size_t>(decode_scratch(rows.rows, rows.cols)));
  const MatView<float> view(decoded.data(), rows.rows, rows.cols);
  decode({.payload = payload}, scratch.data(), view);
  for (int64_t t = 0; t < rows.rows; ++t) {
    double exact = 0.0;
    double coded = 0.0;
    for (int64_t c = 0; c < rows.cols; ++c) {
      exact += double{rows.at(t, c)} * rows.at(t, c);
      coded += double{view.at(t, c)} * view.at(t, c);
    }
    const double factor = coded > 0.0 ? std::sqrt(exact / coded) : 1.0;
    const auto bits = f16_from_f32(static_cast<float>(std::min(factor, double{kMostF16})));
    std::memcpy(payload + at.factors_at + t * 2, &bits, 2);
  }
}

void QuantCodec::encode(MatView<const float> rows, const SideData&, std::byte* payload) const {
  if (rows.rows == 0) return;
  const Layout at(format_, rows.rows, rows.cols);
  // What is kept is chosen among numbers that can be ordered.
  if (at.channels + at.kept > 0 && !all_within(rows, kMostF16)) refuse(rows);
  const std::vector<uint8_t> kept = write_kept(rows, at, payload);
  auto* scales = reinterpret_cast<uint16_t*>(payload);
  auto* zeros = format_.symmetric ? nullptr : reinterpret_cast<uint16_t*>(payload + at.zeros_at);
  if (!encode_page(rows, at.page, kept.empty() ? nullptr : kept.data(), kMostF16, scales, zeros,
                   payload + at.codes_at))
    refuse(rows);
  if (at.end > at.codes_end && at.kept_at > at.codes_end) payload[at.codes_end] = std::byte{0};
  if (format_.norm_correct) write_factors(rows, at, payload);
}

SideKind kind_of(const PackedPage& page) {
  const SideKind by_token = page.bits == 8   ? SideKind::kBits8
                            : page.bits == 4 ? SideKind::kBits4
                            : page.bits == 3 ? SideKind::kBits3
                                             : SideKind::kBits2;
  if (!page.by_channel) return by_token;
  return static_cast<SideKind>(static_cast<int>(by_token) + static_cast<int>(SideKind::kBits8ByChannel) -
                               static_cast<int>(SideKind::kBits8));
}

std::optional<SideFormat> QuantCodec::device_format(int64_t tokens, int64_t width) const {
  const Layout at(format_, tokens, width);
  const auto offset = [](int64_t bytes) { return static_cast<int32_t>(bytes); };
  SideFormat side;
  side.kind = kind_of(at.page);
  side.scale_by_token = format_.axis == ScaleAxis::kToken;
  side.width = offset(width);
  side.tokens = offset(tokens);
  side.group = offset(at.page.group);
  side.groups = offset(at.page.groups());
  side.codes_at = offset(at.codes_at);
  side.scales_at = 0;
  if (!format_.symmetric) side.zeros_at = offset(at.zeros_at);
  side.outliers = offset(at.kept);
  side.places_at = offset(at.kept_at);
  side.place_bits = outlier_place_bits(tokens * width);
  side.outlier_values_at = offset(at.channels_at - at.kept * 2);
  side.dense_channels = offset(at.channels);
  side.channels_at = offset(at.channels_at);
  side.channel_values_at = offset(at.channel_values_at);
  if (format_.norm_correct) side.factors_at = offset(at.factors_at);
  side.bytes = offset(at.end);
  return side;
}

}  // namespace

std::shared_ptr<const SideCodec> make_quant_codec(const QuantFormat& format) {
  return std::make_shared<QuantCodec>(format);
}

}  // namespace kva
