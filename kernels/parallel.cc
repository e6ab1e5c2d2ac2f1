#include "kernels/parallel.h"

#include <cblas.h>
#include <hwy/cache_control.h>
#include <omp.h>

#include <atomic>
#include <chrono>
#include <condition_variable>
#include <exception>
#include <mutex>
#include <thread>
#include <vector>

#include "kernels/check.h"

namespace kva {
namespace {

// The worker's number on a pool thread or inside a parallel_for, else -1.
thread_local int current_worker = -1;

// The caller works as worker 0 of its pool, with OpenMP (and so oneDNN) single-threaded for as long.
class CallerAsWorker {
 public:
  CallerAsWorker() : omp_threads_(omp_get_max_threads()) {
    omp_set_num_threads(1);
    current_worker = 0;
  }
  ~CallerAsWorker() {
    current_worker = -1;
    omp_set_num_threads(omp_threads_);
  }
  CallerAsWorker(const CallerAsWorker&) = delete;
  CallerAsWorker& operator=(const CallerAsWorker&) = delete;

 private:
  int omp_threads_;
};

// A decoding step hands out over a hundred small pieces of work, and waking a thread that sleeps takes longer
// than many of them. So who waits first looks for a moment whether it was for that long only.
constexpr auto kPatience = std::chrono::microseconds(60);

template <class Ready>
bool soon(const Ready& ready) {
  const auto end = std::chrono::steady_clock::now() + kPatience;
  do {
    for (int i = 0; i < 16; ++i) {
      if (ready()) return true;
      hwy::Pause();
    }
  } while (std::chrono::steady_clock::now() < end);
  return false;
}

}  // namespace

struct ThreadPool::Impl {
  std::vector<std::thread> threads;
  std::mutex mutex;
  std::condition_variable wake;
  std::condition_variable finished;
  // Of the job; written under the mutex while no worker has joined.
  const std::function<void(int64_t, int)>* body = nullptr;
  int64_t count = 0;
  std::atomic<int64_t> next{0};
  std::exception_ptr error;  // of the lowest index that threw
  int64_t error_index = 0;
  bool open = false;                   // workers may join
  std::atomic<int64_t> generation{0};  // of jobs; changes under the mutex
  std::atomic<int> busy{0};            // workers that joined and have not left
  std::atomic<bool> stopping{false};

  void work(int worker) {
    for (;;) {
      const int64_t index = next.fetch_add(1, std::memory_order_relaxed);
      if (index >= count) return;
      try {
        (*body)(index, worker);
      } catch (...) {
        std::lock_guard lock(mutex);
        // Lower ones have all begun: the lowest is the one that a loop would meet first.
        if (!error || index < error_index) {
          error = std::current_exception();
          error_index = index;
        }
        next.store(count, std::memory_order_relaxed);
      }
    }
  }

  void loop(int worker) {
    current_worker = worker;
    omp_set_num_threads(1);
    int64_t seen = 0;
    const auto called = [&] { return stopping || generation != seen; };
    for (;;) {
      (void)soon(called);
      {
        std::unique_lock lock(mutex);
        wake.wait(lock, called);
        if (stopping) return;
        seen = generation;
        if (!open) continue;
        ++busy;
      }
      work(worker);
      std::lock_guard lock(mutex);
      if (--busy == 0) finished.notify_one();
    }
  }

  void start(int64_t new_count, const std::function<void(int64_t, int)>& new_body) {
    {
      std::lock_guard lock(mutex);
      body = &new_body;
      count = new_count;
      next.store(0, std::memory_order_relaxed);
      error = nullptr;
      open = true;
      ++generation;
    }
    wake.notify_all();
  }

  // Who has not joined by now need not: nothing is left to do.
  std::exception_ptr finish() {
    const auto done = [&] { return busy == 0; };
    std::unique_lock lock(mutex);
    open = false;
    if (!done()) {
      lock.unlock();
      (void)soon(done);
      lock.lock();
      finished.wait(lock, done);
    }
    body = nullptr;
    return error;
  }
};

ThreadPool::ThreadPool(int threads) : impl_(std::make_unique<Impl>()) {
  KVA_CHECK(threads >= 0, "a pool has at least one thread");
  // Workers call BLAS, some through libraries (FAISS); threads of its own would only get in their way.
  openblas_set_num_threads(1);
  if (threads == 0) threads = static_cast<int>(std::thread::hardware_concurrency());
  if (threads < 1) threads = 1;
  for (int worker = 1; worker < threads; ++worker)
    impl_->threads.emplace_back([this, worker] { impl_->loop(worker); });
}

ThreadPool::~ThreadPool() {
  {
    std::lock_guard lock(impl_->mutex);
    impl_->stopping = true;
  }
  impl_->wake.notify_all();
  for (std::thread& thread : impl_->threads) thread.join();
}

int ThreadPool::threads() const { return static_cast<int>(impl_->threads.size()) + 1; }

void ThreadPool::parallel_for(int64_t count, const std::function<void(int64_t, int)>& body) {
  if (count <= 0) return;
  if (current_worker >= 0) {
    for (int64_t index = 0; index < count; ++index) body(index, current_worker);
    return;
  }
  CallerAsWorker caller;
  if (count == 1) return body(0, 0);
  impl_->start(count, body);
  impl_->work(0);
  if (const std::exception_ptr error = impl_->finish()) std::rethrow_exception(error);
}

}  // namespace kva
