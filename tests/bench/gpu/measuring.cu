#include <algorithm>
#include <cstdio>
#include <vector>

#include "kernels/cuda_check.cuh"
#include "kernels/device_buffer.h"
#include "kernels/matmul_cuda.h"
#include "tests/bench/gpu/measuring.h"
#include "tests/bench/gpu/pages.h"

namespace kva {
namespace {

constexpr int kRepeats = 21;

class Event {
 public:
  Event() { cuda_check(cudaEventCreate(&event_), "making an event"); }
  ~Event() { (void)cudaEventDestroy(event_); }
  Event(const Event&) = delete;
  Event& operator=(const Event&) = delete;
  void record() { cuda_check(cudaEventRecord(event_), "recording an event"); }
  float ms_since(const Event& start) const {
    cuda_check(cudaEventSynchronize(event_), "waiting for the device");
    float ms = 0.0f;
    cuda_check(cudaEventElapsedTime(&ms, start.event_, event_), "reading a time");
    return ms;
  }

 private:
  cudaEvent_t event_ = nullptr;
};

}  // namespace

double median_ms(const std::function<void()>& body) {
  for (int i = 0; i < 3; ++i) body();
  Event start, end;
  std::vector<float> times;
  for (int i = 0; i < kRepeats; ++i) {
    start.record();
    body();
    end.record();
    times.push_back(end.ms_since(start));
  }
  std::nth_element(times.begin(), times.begin() + kRepeats / 2, times.end());
  return static_cast<double>(times[kRepeats / 2]);
}

double copy_rate() {
  const DeviceBuffer from = random_bytes(2 * kLeastBytes), to(static_cast<std::size_t>(2 * kLeastBytes));
  const double ms = median_ms([&] {
    cuda_check(cudaMemcpyAsync(to.as<void>(), from.as<void>(), from.bytes(), cudaMemcpyDeviceToDevice),
               "copying");
  });
  return 2.0 * static_cast<double>(from.bytes()) / ms / 1e6;
}

double product_rate() {
  constexpr int64_t kSide = 8192;
  const DeviceBuffer x = random_bytes(kSide * kSide * 2), weights = random_bytes(kSide * kSide * 2),
                     out(static_cast<std::size_t>(kSide * kSide) * sizeof(float));
  DeviceMatmul matmul;
  const DeviceProduct product{.x = {x.as<uint16_t>(), DType::kF16, kSide, kSide, kSide},
                              .weights = {weights.as<uint16_t>(), DType::kF16, kSide, kSide},
                              .out = {out.as<float>(), DType::kF32, kSide, kSide, kSide}};
  return 2.0 * kSide * kSide * kSide / median_ms([&] { matmul.run(product, nullptr); });
}

void print_row(const std::string& what, double bytes, double ms, double copy) {
  const double rate = bytes / ms / 1e6;
  std::printf("| %s | %.3f | %.3f | %.0f | %.0f%% |\n", what.c_str(), bytes / 1e9, ms, rate,
              100.0 * rate / copy);
}

void print_share(const std::string& what, double ms, const std::string& limit, double limit_ms) {
  std::printf("| %s | %.3f | %s | %.3f | %.0f%% |\n", what.c_str(), ms, limit.c_str(), limit_ms,
              100.0 * limit_ms / ms);
}

}  // namespace kva
