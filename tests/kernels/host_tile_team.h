// The team that kernels/tile_attention.h asks for, on the host: warps of fibers, with the tensor cores'
// operations computed from the lanes' registers as PTX lays them out (mma.m16n8k16, ldmatrix). Bytes that are
// copied asynchronously arrive when they are awaited, not before.
#pragma once

#include <array>
#include <cstring>
#include <functional>
#include <span>
#include <utility>
#include <vector>

#include "kernels/attention_job.h"
#include "kernels/check.h"
#include "kernels/tile_attention.h"
#include "tests/kernels/host_warp.h"

namespace kva {

// What the lanes of a warp show each other.
struct TileExchange {
  const uint16_t* rows[HostWarp::kLanes];
};

class HostTileTeam {
 public:
  // shared: all memory that tiles may be in.
  HostTileTeam(HostWarp::Lane& lane, int warp, TileExchange& exchange, std::span<const std::byte> shared)
      : lane_(lane), warp_(warp), exchange_(exchange), shared_(shared) {}

  int32_t thread() const { return warp_ * HostWarp::kLanes + lane_.lane(); }
  int32_t lane() const { return lane_.lane(); }
  int32_t warp() const { return warp_; }
  void sync() { lane_.sync_block(); }
  float shuffle_xor(float value, int mask) { return lane_.shuffle_xor(value, mask); }
  bool any(bool value) { return lane_.any(value); }

  void copy_async(uint16_t* to, const uint8_t* from, bool present) {
    check_place(to);
    KVA_CHECK(reinterpret_cast<uintptr_t>(from) % 16 == 0, "copies of whole 16 bytes");
    std::array<uint8_t, 16> bytes{};
    if (present) std::memcpy(bytes.data(), from, bytes.size());
    copies_.emplace_back(to, bytes);
  }
  void await_copies() {
    for (const auto& [to, bytes] : copies_) std::memcpy(to, bytes.data(), bytes.size());
    copies_.clear();
  }

  // Lane i names row i % 8 of matrix i / 8; register j has of matrix j row lane / 4, columns 2 (lane % 4) and
  // the next one.
  void load_matrices(const uint16_t* row, uint32_t (&x)[4]) { load(row, x, false); }
  // Column lane / 4, rows 2 (lane % 4) and the next one.
  void load_transposed(const uint16_t* row, uint32_t (&x)[4]) { load(row, x, true); }

  template <class Numbers>
  void multiply(const uint32_t (&a)[4], uint32_t b0, uint32_t b1, float (&c)[4]) {
    lane_.multiply<Numbers>(a, b0, b1, c);
  }

 private:
  void check_place(const uint16_t* at) const {
    const auto* byte = reinterpret_cast<const std::byte*>(at);
    KVA_CHECK(byte >= shared_.data() && byte + 16 <= shared_.data() + shared_.size() &&
                  reinterpret_cast<uintptr_t>(at) % 16 == 0,
              "whole 16 bytes of shared memory");
  }
  void load(const uint16_t* row, uint32_t (&x)[4], bool transposed) {
    check_place(row);
    exchange_.rows[lane()] = row;
    lane_.sync();
    const int group = lane() / 4;
    const int pair = lane() % 4 * 2;
    for (int j = 0; j < 4; ++j) {
      const uint16_t* const* rows = exchange_.rows + 8 * j;
      const uint16_t low = transposed ? rows[pair][group] : rows[group][pair];
      const uint16_t high = transposed ? rows[pair + 1][group] : rows[group][pair + 1];
      x[j] = low | static_cast<uint32_t>(high) << 16;
    }
    lane_.sync();
  }

  HostWarp::Lane& lane_;
  int warp_;
  TileExchange& exchange_;
  std::span<const std::byte> shared_;
  std::vector<std::pair<uint16_t*, std::array<uint8_t, 16>>> copies_;
};

// A block whose threads are the host's.
class HostTileBlock {
 public:
  // Item `item` of a bucket with tiles. Shared memory starts as bytes of ones: NaN, what nobody wrote shows.
  void run(const AttentionJob& job, const AttentionBucket& bucket, const AttentionItem& item) {
    KVA_CHECK(job.turning == KeyTurning::kNone && is_tensor_width(job.head_dim), "what tiles can do");
    with_tensor_width(job.head_dim, [&](auto width) {
      switch (bucket.tiles) {
        case TileKind::kF16: return run_as<width(), TileKind::kF16>(job, bucket, item);
        case TileKind::kBF16: return run_as<width(), TileKind::kBF16>(job, bucket, item);
        default: return run_as<width(), TileKind::kDecoded>(job, bucket, item);
      }
    });
  }

 private:
  template <int kWidth, TileKind kTiles>
  void run_as(const AttentionJob& job, const AttentionBucket& bucket, const AttentionItem& item) {
    using Memory = TileMemory<kWidth>;
    memory_.assign(sizeof(Memory) / sizeof(Line) + 1, Line{});
    std::memset(memory_.data(), 0xff, memory_.size() * sizeof(Line));
    auto& memory = *reinterpret_cast<Memory*>(memory_.data());
    const std::span shared(reinterpret_cast<const std::byte*>(memory_.data()), sizeof(Memory));
    std::array<std::function<void(HostWarp::Lane&)>, kTileWarps> bodies;
    for (int warp = 0; warp < kTileWarps; ++warp) {
      const auto at = static_cast<std::size_t>(warp);
      bodies[at] = [&, warp, at](HostWarp::Lane& lane) {
        HostTileTeam team(lane, warp, exchanges_[at], shared);
        attend_tiles<kWidth, kTiles>(team, job, bucket.keys, bucket.values, item, memory);
      };
      warps_[at].begin(bodies[at]);
    }
    for (bool left = true; left;) {
      left = warps_[0].go_on();
      for (std::size_t warp = 1; warp < warps_.size(); ++warp)
        KVA_CHECK(warps_[warp].go_on() == left, "all warps of a block meet as often");
    }
  }

  struct alignas(16) Line {
    std::byte bytes[16];
  };
  std::array<HostWarp, kTileWarps> warps_;
  std::array<TileExchange, kTileWarps> exchanges_{};
  std::vector<Line> memory_;
};

}  // namespace kva
