// What the CUDA kernels move and how fast, beside a device-to-device copy of the same machine, and comparing
// pages beside the product and the counts that it cannot do without: tables in Markdown on stdout. Without a
// device: one line, exit code 1. See scripts/gpu_check.
#include <cstdio>
#include <exception>

#include "kernels/device_buffer.h"
#include "tests/bench/gpu/cases.h"
#include "tests/bench/gpu/measuring.h"

namespace kva {
namespace {

void run() {
  const double copy = copy_rate();
  std::printf("Copy on the device: %.0f GB/s, bytes read and written.\n\n", copy);
  std::printf("| operation | GB a call | ms | GB/s | share of copy |\n| --- | --- | --- | --- | --- |\n");
  decode_cases(copy);
  packing_cases(copy);
  std::printf("\n| operation | ms | limit | ms | share of limit |\n| --- | --- | --- | --- | --- |\n");
  pair_cases();
  prefill_cases();
}

}  // namespace
}  // namespace kva

int main() {
  if (kva::cuda_device_count() == 0) {
    std::fprintf(stderr, "gpu_bench: no CUDA device here\n");
    return 1;
  }
  try {
    kva::run();
  } catch (const std::exception& error) {
    std::fprintf(stderr, "gpu_bench: %s\n", error.what());
    return 1;
  }
  return 0;
}
