#include "compressors/codecs/zstd_codec.h"

#include <fmt/format.h>

// The static decompression context is part of zstd's "static linking only" interface; its shared library has
// it.
#define ZSTD_STATIC_LINKING_ONLY
#include <zstd.h>

#include <algorithm>
#include <cstring>
#include <memory>

#include "kernels/check.h"
#include "kernels/fetch.h"

namespace kva {
namespace {

constexpr int64_t kLengthBytes = 4;
constexpr int64_t kAlignment = 8;  // of zstd's state

int64_t state_bytes() { return static_cast<int64_t>(ZSTD_estimateDCtxSize()); }

// The first place in the scratch that zstd's state may have.
std::byte* aligned(float* scratch) {
  void* place = scratch;
  auto room = static_cast<std::size_t>(state_bytes() + kAlignment);
  return static_cast<std::byte*>(
      std::align(static_cast<std::size_t>(kAlignment), static_cast<std::size_t>(state_bytes()), place, room));
}

// Every second byte from `first` on.
std::vector<std::byte> plane_of(std::span<const std::byte> bytes, std::size_t first) {
  std::vector<std::byte> plane;
  plane.reserve((bytes.size() + 1 - first) / 2);
  for (std::size_t i = first; i < bytes.size(); i += 2) plane.push_back(bytes[i]);
  return plane;
}

void place_plane(const std::byte* plane, std::size_t first, std::span<std::byte> bytes) {
  for (std::size_t i = first; i < bytes.size(); i += 2) bytes[i] = *plane++;
}

int64_t even_bytes(const ZstdShape& shape) { return shape.planes ? (shape.raw_bytes + 1) / 2 : 0; }

class ZstdCodec : public SideCodec {
 public:
  ZstdCodec(std::shared_ptr<const SideCodec> inner, const ZstdShape& shape)
      : inner_(std::move(inner)), shape_(shape) {
    KVA_CHECK(shape.raw_bytes > 0 && shape.bytes >= kLengthBytes + even_bytes(shape), "room for a frame");
  }

  std::string name() const override { return fmt::format("zstd of {}", inner_->name()); }

  int64_t bytes(int64_t, int64_t) const override { return shape_.bytes; }

  void encode(MatView<const float>, const SideData&, std::byte*) const override {
    KVA_CHECK(false, "frames are made by ZstdCodecs, which finds their size");
  }

  std::shared_ptr<const SideCodec> coder() const override { return inner_; }

  int64_t decode_scratch(int64_t tokens, int64_t width) const override {
    return own_scratch() + inner_->decode_scratch(tokens, width);
  }
  void decode(const SideData& side, float* scratch, MatView<float> rows) const override {
    inner_->decode(unpacked(side, scratch), scratch + own_scratch(), rows);
  }

  int64_t scratch_values(int64_t queries, int64_t tokens, int64_t width) const override {
    return own_scratch() +
           std::max(inner_->scratch_values(queries, tokens, width), inner_->decode_scratch(tokens, width));
  }
  void scores(MatView<const float> queries, const SideData& side, float* scratch,
              MatView<float> scores) const override {
    fetch(side.ahead, shape_.bytes);
    inner_->scores(queries, unpacked(side, scratch), scratch + own_scratch(), scores);
  }
  void accumulate(MatView<const float> weights, const SideData& side, float* scratch,
                  MatView<float> out) const override {
    fetch(side.ahead, shape_.bytes);
    inner_->accumulate(weights, unpacked(side, scratch), scratch + own_scratch(), out);
  }

  bool has_coordinates() const override { return inner_->has_coordinates(); }
  int64_t coordinates(int64_t width) const override { return inner_->coordinates(width); }
  void project(MatView<const float> queries, MatView<float> coords) const override {
    inner_->project(queries, coords);
  }
  void lift(MatView<const float> coords, MatView<float> out) const override { inner_->lift(coords, out); }

  CodecSpec spec() const override {
    return {.kind = "zstd",
            .numbers = {{"bytes", static_cast<double>(shape_.bytes)},
                        {"raw_bytes", static_cast<double>(shape_.raw_bytes)},
                        {"planes", shape_.planes ? 1 : 0}},
            .inner = {inner_}};
  }
  bool takes(int64_t width, int64_t base_width) const override { return inner_->takes(width, base_width); }
  bool accepts(const SideData& side, int64_t tokens, int64_t width) const override {
    if (inner_->bytes(tokens, width) != shape_.raw_bytes) return false;
    std::vector<float> scratch(static_cast<std::size_t>(own_scratch()));
    const std::byte* payload = unpack(side.payload, scratch.data());
    return payload != nullptr && inner_->accepts({payload, side.base, side.base_codec}, tokens, width);
  }

 private:
  // zstd's state, what is in the frame, and the payload where that is put together from planes.
  int64_t own_scratch() const {
    return (kAlignment + state_bytes() + 2 * shape_.raw_bytes + static_cast<int64_t>(sizeof(float)) - 1) /
               static_cast<int64_t>(sizeof(float)) +
           1;
  }

  // The payload in the scratch; null where the frame is not of what it should be.
  const std::byte* unpack(const std::byte* packed, float* scratch) const {
    uint32_t length = 0;
    std::memcpy(&length, packed, sizeof(length));
    const int64_t even = even_bytes(shape_);
    if (kLengthBytes + even + int64_t{length} > shape_.bytes) return nullptr;
    std::byte* state = aligned(scratch);
    ZSTD_DCtx* context = ZSTD_initStaticDCtx(state, static_cast<std::size_t>(state_bytes()));
    KVA_CHECK(context != nullptr, "room for zstd's state");
    std::byte* unpacked = state + state_bytes();
    const auto framed = static_cast<std::size_t>(shape_.raw_bytes - even);
    if (ZSTD_decompressDCtx(context, unpacked, framed, packed + kLengthBytes + even, length) != framed)
      return nullptr;
    if (!shape_.planes) return unpacked;
    const std::span<std::byte> joined(unpacked + shape_.raw_bytes,
                                      static_cast<std::size_t>(shape_.raw_bytes));
    place_plane(packed + kLengthBytes, 0, joined);
    place_plane(unpacked, 1, joined);
    return joined.data();
  }

  SideData unpacked(const SideData& side, float* scratch) const {
    const std::byte* payload = unpack(side.payload, scratch);
    KVA_CHECK(payload != nullptr, "a side holds the frame that was packed");
    return {payload, side.base, side.base_codec};
  }

  std::shared_ptr<const SideCodec> inner_;
  ZstdShape shape_;
};

struct FreeCompressor {
  void operator()(ZSTD_CCtx* context) const { ZSTD_freeCCtx(context); }
};

}  // namespace

std::shared_ptr<const SideCodec> make_zstd_codec(std::shared_ptr<const SideCodec> inner,
                                                 const ZstdShape& shape) {
  return std::make_shared<ZstdCodec>(std::move(inner), shape);
}

ZstdPacked ZstdCodecs::pack(std::span<const std::byte> payload) const {
  const std::unique_ptr<ZSTD_CCtx, FreeCompressor> context(ZSTD_createCCtx());
  KVA_CHECK(context, "memory for a zstd context");
  ZstdPacked best;
  for (const bool planes : {false, true}) {
    ZstdShape shape{.raw_bytes = static_cast<int64_t>(payload.size()), .planes = planes};
    const std::vector<std::byte> odd = planes ? plane_of(payload, 1) : std::vector<std::byte>();
    const std::span<const std::byte> framed = planes ? odd : payload;
    std::vector<std::byte> packed(static_cast<std::size_t>(kLengthBytes));
    if (planes) {
      const std::vector<std::byte> even = plane_of(payload, 0);
      packed.insert(packed.end(), even.begin(), even.end());
    }
    const std::size_t at = packed.size();
    packed.resize(at + ZSTD_compressBound(framed.size()));
    const std::size_t length = ZSTD_compressCCtx(context.get(), packed.data() + at, packed.size() - at,
                                                 framed.data(), framed.size(), level_);
    KVA_CHECK(ZSTD_isError(length) == 0, "zstd compresses any bytes");
    const auto frame = static_cast<uint32_t>(length);
    std::memcpy(packed.data(), &frame, sizeof(frame));
    const auto used = static_cast<int64_t>(at + length);
    shape.bytes = (used + kZstdClassBytes - 1) / kZstdClassBytes * kZstdClassBytes;
    if (shape.bytes >= (best.payload.empty() ? shape.raw_bytes : best.shape.bytes)) continue;
    packed.resize(at + length);
    packed.resize(static_cast<std::size_t>(shape.bytes), std::byte{0});
    best = {shape, std::move(packed)};
  }
  return best;
}

std::shared_ptr<const SideCodec> ZstdCodecs::codec(const std::shared_ptr<const SideCodec>& inner,
                                                   const ZstdShape& shape) {
  std::weak_ptr<const SideCodec>& known = codecs_[{inner.get(), shape.raw_bytes, shape.bytes, shape.planes}];
  std::shared_ptr<const SideCodec> codec = known.lock();
  if (codec) return codec;
  codec = make_zstd_codec(inner, shape);
  known = codec;
  // An inner codec that is gone can have left its address to another: its entry has expired with it.
  std::erase_if(codecs_, [](const auto& entry) { return entry.second.expired(); });
  return codec;
}

}  // namespace kva
