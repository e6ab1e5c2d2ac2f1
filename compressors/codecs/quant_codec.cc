#include "compressors/codecs/quant_codec.h"

#include <fmt/format.h>

#include <algorithm>
#include <cmath>
#include <cstring>
#include <numeric>
#include <vector>

#include "compressors/codecs/outliers.h"
#include "kernels/convert.h"
#include "kernels/dtype.h"
#include "runtime/error.h"

namespace kva {
namespace {

constexpr float kMostF16 = 65504.0f;

// The smallest f16 that is not below a value >= 0 within its range.
uint16_t f16_at_least(double value) {
  uint16_t bits = f16_from_f32(static_cast<float>(value));
  if (static_cast<double>(f32_from_f16(bits)) < value) ++bits;
  return bits;
}

// Where the parts of a payload are.
struct Parts {
  int64_t scales = 0;  // number of scales, and of zeros where there are any
  int64_t kept = 0;    // outliers
  int64_t channels = 0;
  int64_t zeros_at = 0;
  int64_t kept_at = 0;
  int64_t channels_at = 0;
  int64_t channel_values_at = 0;
  int64_t factors_at = 0;
  int64_t codes_at = 0;
  int64_t end = 0;
};

class QuantCodec : public SideCodec {
 public:
  explicit QuantCodec(const QuantFormat& format) : format_(format) {}

  std::string name() const override {
    return fmt::format("quant(bits={}, by {})", format_.bits,
                       format_.axis == ScaleAxis::kToken ? "token" : "channel");
  }

  int64_t bytes(int64_t tokens, int64_t width) const override { return parts(tokens, width).end; }
  int64_t scale_bytes(int64_t tokens, int64_t width) const override { return parts(tokens, width).codes_at; }

  void encode(MatView<const float> rows, const SideData&, std::byte* payload) const override;

  int64_t decode_scratch(int64_t tokens, int64_t width) const override {
    return packed_scratch(1, page(nullptr, tokens, width));
  }

  void decode(const SideData& side, float* scratch, MatView<float> rows) const override {
    packed_decode(page(side.payload, rows.rows, rows.cols), scratch, rows);
    for_kept(side.payload, rows.rows, rows.cols,
             [&](int64_t t, int64_t c, float value, float) { rows.at(t, c) = value; });
    if (!format_.norm_correct) return;
    const uint16_t* factors = factors_of(side.payload, rows.rows, rows.cols);
    for (int64_t t = 0; t < rows.rows; ++t)
      for (int64_t c = 0; c < rows.cols; ++c) rows.at(t, c) *= f32_from_f16(factors[t]);
  }

  int64_t scratch_values(int64_t queries, int64_t tokens, int64_t width) const override {
    return queries * tokens + packed_scratch(queries, page(nullptr, tokens, width));
  }

  void scores(MatView<const float> queries, const SideData& side, float* scratch,
              MatView<float> scores) const override {
    packed_scores(queries, page(side.payload, scores.cols, queries.cols), scratch, scores);
    for_kept(side.payload, scores.cols, queries.cols, [&](int64_t t, int64_t c, float value, float coded) {
      for (int64_t q = 0; q < queries.rows; ++q) scores.at(q, t) += queries.at(q, c) * (value - coded);
    });
    if (!format_.norm_correct) return;
    const uint16_t* factors = factors_of(side.payload, scores.cols, queries.cols);
    for (int64_t t = 0; t < scores.cols; ++t)
      for (int64_t q = 0; q < queries.rows; ++q) scores.at(q, t) *= f32_from_f16(factors[t]);
  }

  void accumulate(MatView<const float> weights, const SideData& side, float* scratch,
                  MatView<float> out) const override {
    MatView<const float> factored = weights;
    if (format_.norm_correct) {
      const uint16_t* factors = factors_of(side.payload, weights.cols, out.cols);
      const MatView<float> scaled(scratch, weights.rows, weights.cols);
      for (int64_t q = 0; q < weights.rows; ++q)
        for (int64_t t = 0; t < weights.cols; ++t)
          scaled.at(q, t) = weights.at(q, t) * f32_from_f16(factors[t]);
      factored = scaled;
    }
    packed_accumulate(factored, page(side.payload, weights.cols, out.cols),
                      scratch + weights.rows * weights.cols, out);
    for_kept(side.payload, weights.cols, out.cols, [&](int64_t t, int64_t c, float value, float coded) {
      for (int64_t q = 0; q < out.rows; ++q) out.at(q, c) += factored.at(q, t) * (value - coded);
    });
  }

  CodecSpec spec() const override {
    return {.kind = "quant",
            .numbers = {{"bits", format_.bits},
                        {"by_channel", format_.axis == ScaleAxis::kChannel ? 1 : 0},
                        {"group", static_cast<double>(format_.group)},
                        {"symmetric", format_.symmetric ? 1 : 0},
                        {"outliers", format_.outliers},
                        {"dense_channels", static_cast<double>(format_.dense_channels)},
                        {"norm_correct", format_.norm_correct ? 1 : 0}}};
  }
  bool accepts(const SideData& side, int64_t tokens, int64_t width) const override {
    const Parts p = parts(tokens, width);
    const auto* channels = reinterpret_cast<const uint16_t*>(side.payload + p.channels_at);
    return outliers_within(side.payload + p.kept_at, p.kept, tokens * width) &&
           std::all_of(channels, channels + p.channels, [&](uint16_t channel) { return channel < width; });
  }

 private:
  int64_t group(int64_t tokens, int64_t width) const {
    if (format_.group > 0) return format_.group;
    return std::max<int64_t>(1, format_.axis == ScaleAxis::kToken ? width : tokens);
  }

  Parts parts(int64_t tokens, int64_t width) const {
    Parts p;
    p.scales = packed_scales(format_.axis, group(tokens, width), tokens, width);
    p.channels = tokens > 0 ? std::min(format_.dense_channels, width) : 0;
    p.kept = std::min(outlier_count(format_.outliers, tokens * width), tokens * (width - p.channels));
    p.zeros_at = p.scales * 2;
    p.kept_at = p.zeros_at + (format_.symmetric ? 0 : p.scales * 2);
    p.channels_at = p.kept_at + outlier_bytes(p.kept, tokens * width);
    p.channel_values_at = p.channels_at + p.channels * 2;
    p.factors_at = p.channel_values_at + p.channels * tokens * 2;
    p.codes_at = p.factors_at + (format_.norm_correct ? tokens * 2 : 0);
    p.end = p.codes_at + tokens * packed_row_bytes(format_.bits, width);
    return p;
  }

  PackedPage page(const std::byte* payload, int64_t tokens, int64_t width) const {
    PackedPage result{.bits = format_.bits,
                      .tokens = tokens,
                      .width = width,
                      .axis = format_.axis,
                      .group = group(tokens, width)};
    if (!payload) return result;
    const Parts p = parts(tokens, width);
    result.codes = payload + p.codes_at;
    result.scales = reinterpret_cast<const uint16_t*>(payload);
    if (!format_.symmetric) result.zeros = reinterpret_cast<const uint16_t*>(payload + p.zeros_at);
    return result;
  }

  int64_t scale_index(int64_t token, int64_t channel, int64_t tokens, int64_t width) const {
    const int64_t size = group(tokens, width);
    if (format_.axis == ScaleAxis::kToken) return token * ((width + size - 1) / size) + channel / size;
    return token / size * width + channel;
  }

  const uint16_t* factors_of(const std::byte* payload, int64_t tokens, int64_t width) const {
    return reinterpret_cast<const uint16_t*>(payload + parts(tokens, width).factors_at);
  }

  // Calls body(token, channel, value, what its code decodes to) for every number kept beside the codes: kept
  // numbers have the code that stands for the zero point.
  template <typename Body>
  void for_kept(const std::byte* payload, int64_t tokens, int64_t width, const Body& body) const {
    const Parts p = parts(tokens, width);
    const auto coded = [&](int64_t t, int64_t c) {
      if (format_.symmetric) return 0.0f;
      const auto* zeros = reinterpret_cast<const uint16_t*>(payload + p.zeros_at);
      return f32_from_f16(zeros[scale_index(t, c, tokens, width)]);
    };
    for (int64_t i = 0; i < p.kept; ++i) {
      const Outlier outlier = outlier_at(payload + p.kept_at, i, p.kept, tokens * width);
      const int64_t t = outlier.place / width;
      const int64_t c = outlier.place % width;
      body(t, c, outlier.value, coded(t, c));
    }
    const auto* channels = reinterpret_cast<const uint16_t*>(payload + p.channels_at);
    const auto* dense = reinterpret_cast<const uint16_t*>(payload + p.channel_values_at);
    for (int64_t i = 0; i < p.channels; ++i)
      for (int64_t t = 0; t < tokens; ++t)
        body(t, channels[i], f32_from_f16(dense[i * tokens + t]), coded(t, channels[i]));
  }

  void check(MatView<const float> rows) const;
  std::vector<uint16_t> widest_channels(MatView<const float> rows) const;
  void write_kept(MatView<const float> rows, const Parts& p, std::vector<uint8_t>& kept,
                  std::byte* payload) const;
  void write_codes(MatView<const float> rows, const Parts& p, const std::vector<uint8_t>& kept,
                   std::byte* payload) const;
  void write_factors(MatView<const float> rows, const Parts& p, std::byte* payload) const;

  QuantFormat format_;
};

void QuantCodec::check(MatView<const float> rows) const {
  for (int64_t t = 0; t < rows.rows; ++t)
    for (int64_t c = 0; c < rows.cols; ++c)
      if (!(std::abs(rows.at(t, c)) <= kMostF16))
        throw InputError(
            fmt::format("token {}, channel {}: quant expected a finite number within f16, found {}", t, c,
                        rows.at(t, c)));
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

void QuantCodec::write_kept(MatView<const float> rows, const Parts& p, std::vector<uint8_t>& kept,
                            std::byte* payload) const {
  if (p.channels > 0) {
    const std::vector<uint16_t> channels = widest_channels(rows);
    std::memcpy(payload + p.channels_at, channels.data(), channels.size() * 2);
    std::byte* values = payload + p.channel_values_at;
    for (const uint16_t c : channels) {
      for (int64_t t = 0; t < rows.rows; ++t, values += 2) {
        from_f32(&rows.at(t, c), DType::kF16, values, 1);
        kept[static_cast<std::size_t>(t * rows.cols + c)] = 1;
      }
    }
  }
  if (p.kept == 0) return;
  const std::vector<int64_t> outliers =
      farthest_numbers(rows, format_.axis, group(rows.rows, rows.cols), p.kept, kept.data());
  write_outliers(rows, outliers, payload + p.kept_at);
  for (const int64_t place : outliers) kept[static_cast<std::size_t>(place)] = 1;
}

void QuantCodec::write_codes(MatView<const float> rows, const Parts& p, const std::vector<uint8_t>& kept,
                             std::byte* payload) const {
  const int64_t tokens = rows.rows;
  const int64_t width = rows.cols;
  const auto most = static_cast<float>((1 << format_.bits) - 1);
  const auto middle = static_cast<float>(1 << (format_.bits - 1));
  std::vector<float> low(static_cast<std::size_t>(p.scales), INFINITY), high(low.size(), -INFINITY);
  for (int64_t t = 0; t < tokens; ++t) {
    for (int64_t c = 0; c < width; ++c) {
      if (kept[static_cast<std::size_t>(t * width + c)]) continue;
      const auto g = static_cast<std::size_t>(scale_index(t, c, tokens, width));
      low[g] = std::min(low[g], rows.at(t, c));
      high[g] = std::max(high[g], rows.at(t, c));
    }
  }
  auto* scales = reinterpret_cast<uint16_t*>(payload);
  auto* zeros = reinterpret_cast<uint16_t*>(payload + p.zeros_at);
  for (std::size_t g = 0; g < low.size(); ++g) {
    if (low[g] > high[g]) low[g] = high[g] = 0.0f;  // every number of the group is kept beside the codes
    if (format_.symmetric) {
      scales[g] = f16_at_least(double{std::max(-low[g], high[g])} / (middle - 1.0f));
      low[g] = 0.0f;
    } else {
      zeros[g] = f16_from_f32(low[g]);
      low[g] = f32_from_f16(zeros[g]);
      scales[g] = f16_at_least(std::max(0.0, double{high[g]} - low[g]) / most);
    }
    high[g] = f32_from_f16(scales[g]);
  }
  std::vector<uint8_t> codes(static_cast<std::size_t>(width));
  const float offset = format_.symmetric ? middle : 0.0f;
  for (int64_t t = 0; t < tokens; ++t) {
    for (int64_t c = 0; c < width; ++c) {
      const auto g = static_cast<std::size_t>(scale_index(t, c, tokens, width));
      const bool coded = !kept[static_cast<std::size_t>(t * width + c)] && high[g] > 0.0f;
      const float steps = coded ? std::nearbyint((rows.at(t, c) - low[g]) / high[g]) : 0.0f;
      codes[static_cast<std::size_t>(c)] = static_cast<uint8_t>(std::clamp(steps + offset, 0.0f, most));
    }
    pack_row(codes.data(), format_.bits, width,
             payload + p.codes_at + t * packed_row_bytes(format_.bits, width));
  }
}

void QuantCodec::write_factors(MatView<const float> rows, const Parts& p, std::byte* payload) const {
  std::fill_n(reinterpret_cast<uint16_t*>(payload + p.factors_at), rows.rows, f16_from_f32(1.0f));
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
    std::memcpy(payload + p.factors_at + t * 2, &bits, 2);
  }
}

void QuantCodec::encode(MatView<const float> rows, const SideData&, std::byte* payload) const {
  check(rows);
  const Parts p = parts(rows.rows, rows.cols);
  if (rows.rows == 0) return;
  std::vector<uint8_t> kept(static_cast<std::size_t>(rows.rows * rows.cols), 0);
  write_kept(rows, p, kept, payload);
  write_codes(rows, p, kept, payload);
  if (format_.norm_correct) write_factors(rows, p, payload);
}

}  // namespace

std::shared_ptr<const SideCodec> make_quant_codec(const QuantFormat& format) {
  return std::make_shared<QuantCodec>(format);
}

}  // namespace kva
