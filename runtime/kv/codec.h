// How one side (K or V) of a page is stored, and how attention reads it as it is.
//
// A codec is immutable and shared by all pages it encoded; a page's payload is a run of bytes that the page
// store owns. What several pages share (bases, codebooks) belongs to the codec itself and comes from the
// cache's SideMemory; what several sides share page by page (a direction, coefficients) is a side of its own,
// their base. All calls are thread-safe.
#pragma once

#include <array>
#include <cstddef>
#include <cstdint>
#include <memory>
#include <optional>
#include <span>
#include <string>
#include <utility>
#include <vector>

#include "kernels/device_page.h"
#include "kernels/dtype.h"
#include "kernels/views.h"

namespace kva {

class RowProjection;  // runtime/kv/row_projection.h
class SideArray;
class SideCodec;

// Arrays at the places of SideFormat::shared.
using DeviceArrays = std::array<const SideArray*, kSharedArrays>;

// Vectors in side memory, `offset` bytes from the beginning of their array.
struct DeviceBasis {
  const SideArray* array = nullptr;
  int64_t offset = 0;
};

// Query rows that scores() and accumulate() are given at most; more of them read a decoded tile.
inline constexpr int64_t kMaxCodecQueries = 16;

// A stored side as its codec reads it.
struct SideData {
  const std::byte* payload = nullptr;
  const std::byte* base = nullptr;  // the payload of the side it builds on, where there is one
  const SideCodec* base_codec = nullptr;
  // The payload of a side of this codec that is read soon, of as many tokens or of fewer: scores() and
  // accumulate() fetch it while they compute. Null: none.
  const std::byte* ahead = nullptr;

  SideData base_data() const { return {base, nullptr, nullptr, nullptr}; }
  // The part of it from `offset` bytes on.
  SideData part(int64_t offset) const {
    return {payload + offset, base, base_codec, ahead ? ahead + offset : nullptr};
  }
};

// What a codec is made of, so that it can be written to a file and made again (compressors/codec_record.h).
struct CodecSpec {
  std::string kind = {};  // "quant"; empty: files cannot hold it
  std::vector<std::pair<std::string, double>> numbers = {};
  std::vector<std::shared_ptr<const SideCodec>> inner = {};
  // Of its side memory, good as long as the codec. What codecs share is the same bytes at the same place.
  std::vector<std::span<const std::byte>> arrays = {};
};

class SideCodec {
 public:
  virtual ~SideCodec() = default;

  // As a recipe spells it: "dense(f16)".
  virtual std::string name() const = 0;

  // Exact payload size of a page of `tokens` tokens with `width` numbers each, and how much of it is not
  // values: scales, zero points, norms, outlier lists. 0 <= scale_bytes <= bytes.
  virtual int64_t bytes(int64_t tokens, int64_t width) const = 0;
  virtual int64_t scale_bytes(int64_t tokens, int64_t width) const;

  // Encodes a page whole: rows [tokens, width]. The same rows give the same bytes, all bytes(tokens, width)
  // of them. `base` is what the side will be read with.
  virtual void encode(MatView<const float> rows, const SideData& base, std::byte* payload) const = 0;
  // What codes the rest of a page of which some tokens are gone, where that is not this codec itself: one
  // that cannot encode by itself names another. Null: this one.
  virtual std::shared_ptr<const SideCodec> coder() const { return nullptr; }

  // Whether a page can grow token by token: then the payload of n tokens starts with that of any fewer.
  virtual bool appendable() const { return false; }
  // Writes rows [n, width] as tokens [first_token, first_token + n). Only for appendable codecs.
  virtual void append(MatView<const float> rows, int64_t first_token, std::byte* payload) const;

  // Reads the page back: rows [tokens, width], the page's number of tokens. scratch: decode_scratch() floats.
  virtual void decode(const SideData& side, float* scratch, MatView<float> rows) const = 0;
  virtual int64_t decode_scratch(int64_t tokens, int64_t width) const;

  // scores(q, t) = queries row q · token t, unscaled, for all of the page's scores.cols tokens. queries:
  // [n, coordinates(width)]. scratch: scratch_values() floats. Where it is not overridden, the page is
  // decoded into the scratch.
  virtual void scores(MatView<const float> queries, const SideData& side, float* scratch,
                      MatView<float> scores) const;

  // out row q += sum over t of weights(q, t) * token t, for all of the page's weights.cols tokens. out:
  // [n, coordinates(width)].
  virtual void accumulate(MatView<const float> weights, const SideData& side, float* scratch,
                          MatView<float> out) const;

  // Floats of scratch that scores() and accumulate() want for n query rows: what decode() takes and one
  // decoded page, where they are not overridden. A side with a base gets, behind those, what the base's codec
  // wants; the same holds for decode().
  virtual int64_t scratch_values(int64_t queries, int64_t tokens, int64_t width) const;

  // A codec may read in coordinates of its own (rotated, or of a low-rank basis). Attention then projects its
  // queries once and lifts its sums once for a run of pages of one codec.
  virtual bool has_coordinates() const { return false; }
  virtual int64_t coordinates(int64_t width) const { return width; }
  // coords row = queries row in the codec's coordinates, such that its product with a token's coordinates is
  // queries row · token.
  virtual void project(MatView<const float> queries, MatView<float> coords) const;
  // out row += the vector with these coordinates.
  virtual void lift(MatView<const float> coords, MatView<float> out) const;

  // How device kernels read a page side of `tokens` tokens (1 to kMostPageTokens) of `width` numbers each (a
  // multiple of 8); nullopt: they cannot. SideFormat::shared is left to readable_format().
  virtual std::optional<SideFormat> device_format(int64_t tokens, int64_t width) const;
  // Whether DeviceOps::pack() writes what encode() does, by that format or the one on a base; with a
  // projection, of the coefficients that DeviceOps::project() gives, which are encode()'s but for rounding.
  virtual bool device_codes() const { return false; }
  // What makes encode() store coefficients of its rows, in place of them; null: nothing.
  virtual const RowProjection* projection() const { return nullptr; }
  // Of its side memory, what those kernels read beside payloads, as SideFormat::shared lists it; null:
  // nothing.
  virtual DeviceArrays device_arrays() const { return {}; }
  // The basis that the side's numbers are on, where its format says so (SideFormat::on_basis).
  virtual DeviceBasis device_basis() const { return {}; }

  // The same of a side that builds on one which device kernels read in the format `base`. Of kScaledBase, or
  // of numbers that are all in the base's payload: then its own is empty.
  virtual std::optional<SideFormat> device_format_on(const SideFormat& base, int64_t tokens,
                                                     int64_t width) const;

  virtual CodecSpec spec() const;
  // For payloads from files. Whether it can hold rows of this width, building on a side of base_width numbers
  // a token (0: on none); asked before anything else is.
  virtual bool takes(int64_t width, int64_t base_width) const;
  // Whether decode() stays within a payload of bytes(tokens, width) that a stranger wrote, and within `rows`.
  virtual bool accepts(const SideData& side, int64_t tokens, int64_t width) const;
};

// Values kept as they are, rounded to `type`. Always the same codec for a type. Thread-safe.
std::shared_ptr<const SideCodec> make_dense_codec(DType type);

}  // namespace kva
