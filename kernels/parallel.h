// One pool of threads for everything kvanalyze computes. Who waits looks for what it waits for during some
// microseconds and then sleeps; BLAS, oneDNN and OpenMP run single-threaded inside a worker.
//
// Determinism is the caller's: split work by the problem's size, never by the number of threads, and merge
// results in index order; then results are bit-equal at any thread count.
#pragma once

#include <cstdint>
#include <functional>
#include <memory>

namespace kva {

class ThreadPool {
 public:
  // threads >= 1, counting the calling thread; 0 means one a hardware thread.
  explicit ThreadPool(int threads = 0);
  ~ThreadPool();
  ThreadPool(const ThreadPool&) = delete;
  ThreadPool& operator=(const ThreadPool&) = delete;

  int threads() const;

  // Calls body(index, worker) for every index in [0, count), each once, in any order; worker is in
  // [0, threads()) and names the thread, for scratch space of its own. Returns when all are done; what the
  // lowest index threw is rethrown. One parallel_for at a time: calls inside a body run inline on that
  // worker.
  void parallel_for(int64_t count, const std::function<void(int64_t index, int worker)>& body);

 private:
  struct Impl;
  std::unique_ptr<Impl> impl_;
};

}  // namespace kva
