// Runs the code of a warp's lanes on the host. Each lane is a fiber of its own stack; where lanes meet
// (shuffle_xor, sync), a fiber waits until all others have come as far, so a lane that misses a meeting fails
// the test instead of going unnoticed. Warps of a block run after each other, from one meeting of the block
// to the next.
#pragma once

#include <setjmp.h>
#include <ucontext.h>

#include <algorithm>
#include <array>
#include <cstdint>
#include <functional>
#include <memory>
#include <vector>

#include "kernels/check.h"
#include "kernels/value_math.h"

namespace kva {

class HostWarp {
 public:
  static constexpr int kLanes = 32;

  class Lane {
   public:
    Lane(HostWarp& warp, int lane) : warp_(warp), lane_(lane) {}
    int lane() const { return lane_; }
    float shuffle_xor(float value, int mask) { return static_cast<float>(shuffle_xor(double{value}, mask)); }
    double shuffle_xor(double value, int mask) {
      warp_.values_[static_cast<std::size_t>(lane_)] = value;
      sync();
      const double other = warp_.values_[static_cast<std::size_t>(lane_ ^ mask)];
      sync();  // before the next value is written
      return other;
    }
    float shuffle(float value, int lane) {
      warp_.values_[static_cast<std::size_t>(lane_)] = value;
      sync();
      const double other = warp_.values_[static_cast<std::size_t>(lane)];
      sync();
      return static_cast<float>(other);
    }
    uint32_t shuffle(uint32_t bits, int lane) {
      warp_.operands_[static_cast<std::size_t>(lane_)].pairs = bits;
      sync();
      const uint32_t other = warp_.operands_[static_cast<std::size_t>(lane)].pairs;
      sync();
      return other;
    }

    bool any(bool x) {
      warp_.values_[static_cast<std::size_t>(lane_)] = x ? 1.0 : 0.0;
      sync();
      const bool found = std::count(warp_.values_.begin(), warp_.values_.end(), 1.0) > 0;
      sync();
      return found;
    }

    // movmatrix: lane l has numbers 2 (l % 4) and the next of row l / 4 of an 8 x 8 matrix of 16-bit numbers.
    uint32_t transpose(uint32_t pairs) {
      warp_.operands_[static_cast<std::size_t>(lane_)].pairs = pairs;
      sync();
      const auto number = [&](int row, int column) {
        const uint32_t pair = warp_.operands_[static_cast<std::size_t>(4 * row + column / 2)].pairs;
        return (pair >> (16 * (column % 2))) & 0xffffu;
      };
      const uint32_t transposed = number(2 * (lane_ % 4), lane_ / 4) | number(2 * (lane_ % 4) + 1, lane_ / 4)
                                                                           << 16;
      sync();
      return transposed;
    }

    // c += a b: mma.sync.m16n8k16, by PTX's tables of who holds what. a: 16 x 16; registers 0 and 2 are of
    // row lane / 4, 1 and 3 of 8 rows below, 2 and 3 of 8 columns on. b: 16 x 8, column lane / 4, the second
    // register 8 rows below. c: row lane / 4 (numbers 0 and 1) and lane / 4 + 8, columns 2 (lane % 4) and the
    // next.
    template <class Numbers>
    void multiply(const uint32_t (&a)[4], uint32_t b0, uint32_t b1, float (&c)[4]) {
      Operands& own = warp_.operands_[static_cast<std::size_t>(lane_)];
      const auto put = [](uint32_t pair, double(&to)[2]) {
        for (int i = 0; i < 2; ++i) to[i] = double{Numbers::value(static_cast<uint16_t>(pair >> (16 * i)))};
      };
      for (int i = 0; i < 4; ++i) put(a[i], own.a[i]);
      put(b0, own.b[0]);
      put(b1, own.b[1]);
      sync();
      for (int i = 0; i < 4; ++i) {
        const std::size_t row = static_cast<std::size_t>(lane_ / 4 * 4);
        const auto column = static_cast<std::size_t>((2 * (lane_ % 4) + i % 2) * 4);
        double sum = double{c[i]};
        for (int k = 0; k < 16; ++k) {
          const auto pair = static_cast<std::size_t>(k % 8 / 2);
          sum += warp_.operands_[row + pair].a[i / 2 + k / 8 * 2][k % 2] *
                 warp_.operands_[column + pair].b[k / 8][k % 2];
        }
        c[i] = static_cast<float>(sum);
      }
      sync();
    }

    void sync() {
      ++warp_.meetings_[static_cast<std::size_t>(lane_)];
      warp_.yield(lane_);
    }
    // A meeting of all warps of a block.
    void sync_block() {
      warp_.waits_[static_cast<std::size_t>(lane_)] = true;
      sync();
    }

   private:
    HostWarp& warp_;
    int lane_;
  };

  // Runs body(lane) for all lanes.
  void run(const std::function<void(Lane&)>& body) {
    begin(body);
    KVA_CHECK(!go_on(), "a warp that is no block's");
  }

  // Makes body(lane) ready to run for all lanes; it outlives that.
  void begin(const std::function<void(Lane&)>& body) {
    body_ = &body;
    done_.fill(false);
    entered_.fill(false);
    meetings_.fill(0);
    stacks_.resize(kLanes);
    for (int lane = 0; lane < kLanes; ++lane) start(lane);
  }
  // Runs all lanes until they are through (false) or at a meeting of the block (true).
  bool go_on() {
    waits_.fill(false);
    for (bool left = true; left;) {
      left = false;
      for (int lane = 0; lane < kLanes; ++lane) {
        const auto at = static_cast<std::size_t>(lane);
        if (done_[at]) continue;
        resume(at);
        left |= !done_[at];
      }
      for (const int64_t count : meetings_)
        KVA_CHECK(count == meetings_[0], "all lanes of a warp meet as often");
      for (const bool waits : waits_) KVA_CHECK(waits == waits_[0], "all lanes of a warp meet the block");
      if (waits_[0]) return true;
    }
    return false;
  }

 private:
  struct Operands {
    uint32_t pairs = 0;
    double a[4][2] = {};
    double b[2][2] = {};
  };
  static constexpr std::size_t kStackBytes = 128 << 10;

  void start(int lane) {
    const auto at = static_cast<std::size_t>(lane);
    if (!stacks_[at]) stacks_[at] = std::make_unique_for_overwrite<char[]>(kStackBytes);
    getcontext(&lanes_[at]);
    lanes_[at].uc_stack.ss_sp = stacks_[at].get();
    lanes_[at].uc_stack.ss_size = kStackBytes;
    lanes_[at].uc_link = nullptr;
    // makecontext() hands over ints only.
    const auto address = reinterpret_cast<uintptr_t>(this);
    makecontext(&lanes_[at], reinterpret_cast<void (*)()>(&enter), 3, static_cast<unsigned>(address >> 32),
                static_cast<unsigned>(address), lane);
  }
  static void enter(unsigned high, unsigned low, int lane) {
    auto* warp = reinterpret_cast<HostWarp*>(static_cast<uintptr_t>(high) << 32 | low);
    Lane of_warp(*warp, lane);
    (*warp->body_)(of_warp);
    warp->done_[static_cast<std::size_t>(lane)] = true;
    _longjmp(warp->to_main_, 1);
  }
  // Contexts are entered once; between them jumps switch, which leave the signal mask alone and so cost no
  // system call.
  void resume(std::size_t at) {
    if (_setjmp(to_main_) != 0) return;
    if (entered_[at]) _longjmp(to_lane_[at], 1);
    entered_[at] = true;
    setcontext(&lanes_[at]);
  }
  void yield(int lane) {
    if (_setjmp(to_lane_[static_cast<std::size_t>(lane)]) == 0) _longjmp(to_main_, 1);
  }

  const std::function<void(Lane&)>* body_ = nullptr;
  jmp_buf to_main_{};
  std::array<ucontext_t, kLanes> lanes_{};
  std::array<jmp_buf, kLanes> to_lane_{};
  std::array<bool, kLanes> entered_{};
  std::array<bool, kLanes> done_{};
  std::array<bool, kLanes> waits_{};  // for the block
  std::array<double, kLanes> values_{};
  std::array<Operands, kLanes> operands_{};
  std::array<int64_t, kLanes> meetings_{};
  std::vector<std::unique_ptr<char[]>> stacks_;
};

}  // namespace kva
