#include <algorithm>
#include <array>
#include <cstring>

#include "kernels/cuda_check.cuh"
#include "kernels/pinned_copies.h"

namespace kva {
namespace {

constexpr int64_t kPartBytes = int64_t{4} << 20;
constexpr int64_t kAligned = 256;

// A pinned buffer that the device reads or writes until its event.
class Part {
 public:
  Part() {
    cuda_check(cudaMallocHost(reinterpret_cast<void**>(&memory_), kPartBytes), "allocating pinned memory");
    cuda_check(cudaEventCreateWithFlags(&done_, cudaEventDisableTiming), "making an event");
  }
  ~Part() {
    (void)cudaEventDestroy(done_);
    (void)cudaFreeHost(memory_);
  }
  Part(const Part&) = delete;
  Part& operator=(const Part&) = delete;

  std::byte* memory() const { return memory_; }
  void mark(cudaStream_t stream) { cuda_check(cudaEventRecord(done_, stream), "marking a copy"); }
  void wait() { cuda_check(cudaEventSynchronize(done_), "waiting for a copy"); }

 private:
  std::byte* memory_ = nullptr;
  cudaEvent_t done_ = nullptr;
};

}  // namespace

struct PinnedCopies::Impl {
  cudaStream_t stream;
  std::array<Part, 2> up, down;
  std::size_t filling = 0;  // the part of `up` that uploads go to
  int64_t filled = 0;       // of its bytes

  // The other part is free once what was sent from it is there.
  void turn_over() {
    up[filling].mark(stream);
    filling = 1 - filling;
    filled = 0;
    up[filling].wait();
  }
};

PinnedCopies::PinnedCopies(void* stream) : impl_(new Impl{static_cast<cudaStream_t>(stream), {}, {}}) {}

PinnedCopies::~PinnedCopies() = default;

void PinnedCopies::to_device(void* target, const void* source, int64_t bytes) {
  Impl& d = *impl_;
  for (int64_t done = 0; done < bytes;) {
    if (d.filled >= kPartBytes) d.turn_over();
    const int64_t count = std::min(bytes - done, kPartBytes - d.filled);
    std::byte* staged = d.up[d.filling].memory() + d.filled;
    std::memcpy(staged, static_cast<const std::byte*>(source) + done, static_cast<std::size_t>(count));
    cuda_check(cudaMemcpyAsync(static_cast<std::byte*>(target) + done, staged,
                               static_cast<std::size_t>(count), cudaMemcpyHostToDevice, d.stream),
               "copying to the device");
    d.filled += (count + kAligned - 1) / kAligned * kAligned;
    done += count;
  }
}

void PinnedCopies::to_host(void* target, const void* source, int64_t bytes) {
  Impl& d = *impl_;
  const int64_t parts = (bytes + kPartBytes - 1) / kPartBytes;
  const auto size = [&](int64_t part) {
    return static_cast<std::size_t>(std::min(kPartBytes, bytes - part * kPartBytes));
  };
  // One part is on its way while the one before is copied on.
  for (int64_t part = 0; part <= parts; ++part) {
    if (part < parts) {
      Part& next = d.down[static_cast<std::size_t>(part % 2)];
      cuda_check(cudaMemcpyAsync(next.memory(), static_cast<const std::byte*>(source) + part * kPartBytes,
                                 size(part), cudaMemcpyDeviceToHost, d.stream),
                 "copying from the device");
      next.mark(d.stream);
    }
    if (part == 0) continue;
    Part& last = d.down[static_cast<std::size_t>((part - 1) % 2)];
    last.wait();
    std::memcpy(static_cast<std::byte*>(target) + (part - 1) * kPartBytes, last.memory(), size(part - 1));
  }
}

}  // namespace kva
