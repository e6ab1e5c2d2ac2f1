#include "kernels/parallel.h"

#include <cblas.h>
#include <omp.h>

#include <atomic>
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

}  // namespace

struct ThreadPool::Impl {
  std::vector<std::thread> threads;
  std::mutex mutex;
  std::condition_variable wake;
  std::condition_variable finished;
  const std::function<void(int64_t, int)>* body = nullptr;
  std::atomic<int64_t> next{0};
  int64_t count = 0;
  int64_t generation = 0;
  int busy = 0;
  bool stopping = false;
  std::exception_ptr error;

  void work(int worker) {
    for (;;) {
      const int64_t index = next.fetch_add(1, std::memory_order_relaxed);
      if (index >= count) return;
      try {
        (*body)(index, worker);
      } catch (...) {
        std::lock_guard lock(mutex);
        if (!error) error = std::current_exception();
        next.store(count, std::memory_order_relaxed);
      }
    }
  }

  void loop(int worker) {
    current_worker = worker;
    omp_set_num_threads(1);
    int64_t seen = 0;
    std::unique_lock lock(mutex);
    for (;;) {
      wake.wait(lock, [&] { return stopping || generation != seen; });
      if (stopping) return;
      seen = generation;
      lock.unlock();
      work(worker);
      lock.lock();
      if (--busy == 0) finished.notify_one();
    }
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
  Impl& pool = *impl_;
  {
    std::lock_guard lock(pool.mutex);
    pool.body = &body;
    pool.count = count;
    pool.next.store(0, std::memory_order_relaxed);
    pool.busy = static_cast<int>(pool.threads.size());
    pool.error = nullptr;
    ++pool.generation;
  }
  pool.wake.notify_all();
  pool.work(0);
  std::exception_ptr error;
  {
    std::unique_lock lock(pool.mutex);
    pool.finished.wait(lock, [&] { return pool.busy == 0; });
    pool.body = nullptr;
    error = pool.error;
  }
  if (error) std::rethrow_exception(error);
}

}  // namespace kva
