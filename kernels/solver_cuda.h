// Dense linear algebra on the device by cuBLAS and cuSOLVER (kernels/solver_lanes.h). Compiled without CUDA;
// only in builds with it.
#pragma once

#include <cstdint>
#include <functional>
#include <memory>

#include "kernels/solver_lanes.h"

namespace kva {

// Owns the libraries' handles and cuBLAS's workspace. Used by one thread at a time. Everything runs in order
// on the stream that it was made with; what factors matrices waits for its end, since it says there whether
// it succeeded. Throws std::runtime_error where CUDA fails or does not converge. All addresses are the
// device's.
class DeviceSolver {
 public:
  // Memory for one call, in order on the stream; null where there is none.
  struct Memory {
    std::function<void*(int64_t bytes)> take;
    std::function<void(void* memory)> give_back;
  };

  // stream: a cudaStream_t.
  DeviceSolver(void* stream, Memory memory);
  ~DeviceSolver();
  DeviceSolver(const DeviceSolver&) = delete;
  DeviceSolver& operator=(const DeviceSolver&) = delete;

  void run(const MatrixProduct& product);
  // One matrix after the other: for large ones.
  void run(const OrthonormalJob& job);
  // Small ones all at once.
  void run(const EigenJob& job);

  int64_t workspace_bytes() const;  // held between calls

 private:
  struct Impl;
  std::unique_ptr<Impl> impl_;
};

}  // namespace kva
