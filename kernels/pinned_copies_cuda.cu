#include <algorithm>
#include <array>
#include <cstring>
#include <vector>

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

// What fits into a part of the buffers, piece by piece.
std::vector<std::vector<DevicePiece>> cut_to_parts(std::span<const DevicePiece> pieces) {
  std::vector<std::vector<DevicePiece>> parts;
  int64_t filled = kPartBytes;
  for (const DevicePiece& piece : pieces)
    for (int64_t done = 0; done < piece.bytes;) {
      if (filled >= kPartBytes) {
        parts.emplace_back();
        filled = 0;
      }
      const int64_t count = std::min(piece.bytes - done, kPartBytes - filled);
      parts.back().push_back({static_cast<std::byte*>(piece.target) + done,
                              static_cast<const std::byte*>(piece.source) + done, count});
      filled += (count + kAligned - 1) / kAligned * kAligned;
      done += count;
    }
  return parts;
}

// each(piece, its bytes in the part).
template <class Each>
void each_piece(const std::vector<DevicePiece>& pieces, const Part& part, const Each& each) {
  int64_t at = 0;
  for (const DevicePiece& piece : pieces) {
    each(piece, part.memory() + at);
    at += (piece.bytes + kAligned - 1) / kAligned * kAligned;
  }
}

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

void PinnedCopies::to_host(std::span<const DevicePiece> pieces) {
  Impl& d = *impl_;
  const auto parts = cut_to_parts(pieces);
  // One part is on its way while the one before is copied on.
  for (std::size_t part = 0; part <= parts.size(); ++part) {
    if (part < parts.size()) {
      Part& next = d.down[part % 2];
      each_piece(parts[part], next, [&](const DevicePiece& piece, std::byte* staged) {
        cuda_check(cudaMemcpyAsync(staged, piece.source, static_cast<std::size_t>(piece.bytes),
                                   cudaMemcpyDeviceToHost, d.stream),
                   "copying from the device");
      });
      next.mark(d.stream);
    }
    if (part == 0) continue;
    Part& last = d.down[(part - 1) % 2];
    last.wait();
    each_piece(parts[part - 1], last, [](const DevicePiece& piece, const std::byte* staged) {
      std::memcpy(piece.target, staged, static_cast<std::size_t>(piece.bytes));
    });
  }
}

}  // namespace kva
