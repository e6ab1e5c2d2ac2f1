// A side whose payload another codec made, compressed losslessly as one zstd frame (RFC 8878).
#pragma once

#include <cstddef>
#include <cstdint>
#include <map>
#include <memory>
#include <span>
#include <tuple>
#include <vector>

#include "runtime/kv/codec.h"

namespace kva {

// Frames differ in length and a codec tells its size, so there is a codec for every multiple of so many
// bytes.
inline constexpr int64_t kZstdClassBytes = 64;

struct ZstdShape {
  int64_t bytes = 0;      // of a payload: a multiple of kZstdClassBytes
  int64_t raw_bytes = 0;  // of the inner codec's payload in it
  // Only the odd bytes are in the frame, the even ones in front of it: the upper halves of 2-byte numbers are
  // much alike, the lower ones noise that would spoil their statistics.
  bool planes = false;
};

// Payload: the frame's length u32, with planes the even bytes, the frame, zeros up to `bytes`. Reading
// unpacks the page into the scratch, which holds zstd's own state too (about 95 KiB); nothing is allocated.
// Sides of it are made with ZstdCodecs, not by encode(): their size is known only then.
std::shared_ptr<const SideCodec> make_zstd_codec(std::shared_ptr<const SideCodec> inner,
                                                 const ZstdShape& shape);

struct ZstdPacked {
  ZstdShape shape;
  std::vector<std::byte> payload;  // shape.bytes; empty: packing makes it no smaller
};

// Packs payloads, with planes where that is smaller, and keeps one codec for what is inside and its shape as
// long as someone holds it.
class ZstdCodecs {
 public:
  explicit ZstdCodecs(int level) : level_(level) {}

  // Thread-safe.
  ZstdPacked pack(std::span<const std::byte> payload) const;
  // The codec that reads what pack() made of a payload of `inner`. One thread at a time.
  std::shared_ptr<const SideCodec> codec(const std::shared_ptr<const SideCodec>& inner,
                                         const ZstdShape& shape);

 private:
  int level_;
  std::map<std::tuple<const SideCodec*, int64_t, int64_t, bool>, std::weak_ptr<const SideCodec>> codecs_;
};

}  // namespace kva
