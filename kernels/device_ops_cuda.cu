#include <atomic>
#include <cstdio>
#include <exception>
#include <limits>
#include <mutex>
#include <optional>

#include "kernels/cover_cuda.h"
#include "kernels/cuda_check.cuh"
#include "kernels/decoder_cuda.h"
#include "kernels/device_buffer.h"
#include "kernels/device_ops_cuda.h"
#include "kernels/duplicates_cuda.h"
#include "kernels/encode_cuda.h"
#include "kernels/matmul_cuda.h"
#include "kernels/nearest_cuda.h"
#include "kernels/orthonormal_lanes.h"
#include "kernels/pack_cuda.h"
#include "kernels/paged_attention_cuda.h"
#include "kernels/pinned_copies.h"
#include "kernels/projection_cuda.h"
#include "kernels/recorded_device.h"
#include "kernels/similarity_cuda.h"
#include "kernels/solver_cuda.h"
#include "kernels/unpack_cuda.h"

namespace kva {
namespace {

constexpr int kLeastMajor = 8;  // compute capability that the kernels are compiled for

class Stream {
 public:
  Stream() { cuda_check(cudaStreamCreateWithFlags(&stream_, cudaStreamNonBlocking), "making a stream"); }
  ~Stream() { (void)cudaStreamDestroy(stream_); }
  Stream(const Stream&) = delete;
  Stream& operator=(const Stream&) = delete;
  cudaStream_t get() const { return stream_; }

 private:
  cudaStream_t stream_ = nullptr;
};

class Mark : public DeviceMark {
 public:
  explicit Mark(cudaStream_t stream) {
    cuda_check(cudaEventCreateWithFlags(&event_, cudaEventDisableTiming), "making an event");
    cuda_check(cudaEventRecord(event_, stream), "marking");
  }
  ~Mark() override { (void)cudaEventDestroy(event_); }
  Mark(const Mark&) = delete;
  Mark& operator=(const Mark&) = delete;
  cudaEvent_t event() const { return event_; }

 private:
  cudaEvent_t event_ = nullptr;
};

// A pool of its own: what was freed stays with it and is handed out again without asking the driver.
class Pool {
 public:
  explicit Pool(int device) {
    cudaMemPoolProps properties{};
    properties.allocType = cudaMemAllocationTypePinned;
    properties.location.type = cudaMemLocationTypeDevice;
    properties.location.id = device;
    cuda_check(cudaMemPoolCreate(&pool_, &properties), "making a memory pool");
    uint64_t kept = std::numeric_limits<uint64_t>::max();
    cuda_check(cudaMemPoolSetAttribute(pool_, cudaMemPoolAttrReleaseThreshold, &kept),
               "setting up a memory pool");
  }
  ~Pool() { (void)cudaMemPoolDestroy(pool_); }
  Pool(const Pool&) = delete;
  Pool& operator=(const Pool&) = delete;

  // nullptr where there is no more.
  void* take(int64_t bytes, cudaStream_t stream) {
    void* memory = nullptr;
    cudaError_t status = cudaMallocFromPoolAsync(&memory, static_cast<std::size_t>(bytes), pool_, stream);
    if (status == cudaErrorMemoryAllocation) {
      (void)cudaGetLastError();  // clears it
      // What is free may lie in pieces.
      cuda_check(cudaStreamSynchronize(stream), "waiting");
      cuda_check(cudaMemPoolTrimTo(pool_, 0), "trimming a memory pool");
      status = cudaMallocFromPoolAsync(&memory, static_cast<std::size_t>(bytes), pool_, stream);
    }
    if (status == cudaErrorMemoryAllocation) {
      (void)cudaGetLastError();
      return nullptr;
    }
    cuda_check(status, "allocating device memory");
    return memory;
  }
  // Bytes that it holds without having handed them out.
  int64_t idle_bytes() const {
    uint64_t reserved = 0;
    uint64_t used = 0;
    cuda_check(cudaMemPoolGetAttribute(pool_, cudaMemPoolAttrReservedMemCurrent, &reserved), "asking a pool");
    cuda_check(cudaMemPoolGetAttribute(pool_, cudaMemPoolAttrUsedMemCurrent, &used), "asking a pool");
    return static_cast<int64_t>(reserved - used);
  }
  int64_t peak_bytes() const {
    uint64_t used = 0;
    cuda_check(cudaMemPoolGetAttribute(pool_, cudaMemPoolAttrUsedMemHigh, &used), "asking a pool");
    return static_cast<int64_t>(used);
  }

 private:
  cudaMemPool_t pool_ = nullptr;
};

// Launches as a graph.
class Graph : public Recording {
 public:
  // Made of what `launch` launches on `recorded`, which nothing else is on, to run on `stream`. `held`, to
  // which its bytes are added, and the streams outlive it.
  template <class Body>
  Graph(cudaStream_t recorded, cudaStream_t stream, std::atomic<int64_t>& held, const Body& launch)
      : stream_(stream), held_(held) {
    cuda_check(cudaStreamBeginCapture(recorded, cudaStreamCaptureModeThreadLocal), "beginning a recording");
    cudaGraph_t graph = nullptr;
    try {
      launch(recorded);
    } catch (...) {
      (void)cudaStreamEndCapture(recorded, &graph);
      if (graph) (void)cudaGraphDestroy(graph);
      throw;
    }
    cuda_check(cudaStreamEndCapture(recorded, &graph), "ending a recording");
    const int64_t before = free_bytes();
    const cudaError_t status = cudaGraphInstantiateWithFlags(&graph_, graph, 0);
    (void)cudaGraphDestroy(graph);
    cuda_check(status, "making a recording");
    const int64_t after = free_bytes();
    bytes_ = before > after ? before - after : 0;
    held_ += bytes_;
  }
  ~Graph() override {
    (void)cudaStreamSynchronize(stream_);  // it may be running
    (void)cudaGraphExecDestroy(graph_);
    held_ -= bytes_;
  }
  Graph(const Graph&) = delete;
  Graph& operator=(const Graph&) = delete;

  void run() { cuda_check(cudaGraphLaunch(graph_, stream_), "launching a recording"); }

 private:
  static int64_t free_bytes() {
    std::size_t free = 0;
    std::size_t total = 0;
    cuda_check(cudaMemGetInfo(&free, &total), "asking for free memory");
    return static_cast<int64_t>(free);
  }

  cudaStream_t stream_;
  std::atomic<int64_t>& held_;
  cudaGraphExec_t graph_ = nullptr;
  int64_t bytes_ = 0;  // by which the driver's free memory fell
};

class CudaDevice : public RecordedDevice {
 public:
  CudaDevice(int device, std::string name)
      : ordinal_(device), name_(std::move(name)), pool_(device), copies_(raw_.get()) {}
  ~CudaDevice() override {
    (void)cudaStreamSynchronize(raw_.get());
    forget_recordings();
    if (workspace_) (void)cudaFreeAsync(workspace_, raw_.get());
    (void)cudaStreamSynchronize(raw_.get());
  }

  std::string name() const override { return name_; }
  std::optional<int> cuda_ordinal() const override { return ordinal_; }
  DeviceMemory memory() const override {
    std::size_t free = 0;
    std::size_t total = 0;
    cuda_check(cudaMemGetInfo(&free, &total), "asking for free memory");
    const auto all = static_cast<int64_t>(total);
    const auto unused = static_cast<int64_t>(free);
    return {.total_bytes = all,
            .free_bytes = unused + pool_.idle_bytes(),
            .used_bytes = all - unused,
            .peak_bytes = pool_.peak_bytes() + matmul_.workspace_bytes() + solver_bytes()};
  }

  int64_t workspace_bytes() const override {
    return matmul_.workspace_bytes() + workspace_bytes_ + graph_bytes_ + solver_bytes();
  }

  void* allocate(int64_t bytes) override { return pool_.take(bytes, raw_.get()); }
  void free(void* memory) noexcept override {
    if (!memory) return;
    try {
      in_order();
    } catch (const std::exception&) {
      // An error of the device; the next call that may throw finds it.
    }
    (void)cudaFreeAsync(memory, raw_.get());
  }
  void upload(void* target, const void* source, int64_t bytes) override {
    in_order();
    const std::scoped_lock lock(copying_);
    copies_.to_device(target, source, bytes);
  }
  void download(void* target, const void* source, int64_t bytes) override {
    in_order();
    const std::scoped_lock lock(copying_);
    const DevicePiece piece{target, source, bytes};
    copies_.to_host({&piece, 1});
  }
  std::unique_ptr<DeviceMark> mark() override { return std::make_unique<Mark>(stream_.get()); }
  void fetch(std::span<const DevicePiece> pieces, const DeviceMark& from) override {
    const std::scoped_lock lock(fetching_);
    cuda_check(cudaStreamWaitEvent(side_stream_.get(), static_cast<const Mark&>(from).event(), 0),
               "waiting on the side");
    if (!side_copies_) side_copies_.emplace(side_stream_.get());
    side_copies_->to_host(pieces);
  }
  void wait() override { cuda_check(cudaStreamSynchronize(stream_.get()), "waiting for the device"); }

  void choose(const SampleJob& job, int32_t* token) override {
    const bool sorts =
        job.temperature > 0.0 && ((job.top_k > 0 && job.top_k < job.vocabulary) || job.top_p < 1.0);
    take_workspace(choose_workspace_bytes(job.vocabulary, sorts), "allocating room to choose a token");
    choose_cuda(job, workspace_, workspace_bytes_, token, stream_.get());
  }

  void place(const PlaceJob& job) override { place_cuda(job, stream_.get()); }
  void pack(const PackJob& job) override { pack_cuda(job, stream_.get()); }
  void unpack(const UnpackJob& job) override { unpack_cuda(job, stream_.get()); }
  void project(const ProjectionJob& job) override { project_cuda(job, stream_.get()); }

  void nearest(const NearestJob& job) override { nearest_cuda(job, stream_.get()); }
  void count_bits(const BitCountJob& job) override { count_bits_cuda(job, stream_.get()); }
  void compare_pairs(const PairJob& job) override { compare_pairs_cuda(job, stream_.get()); }
  void cover(const CoverJob& job) override { cover_cuda(job, stream_.get()); }
  void count_duplicates(const DuplicateJob& job) override {
    take_workspace(duplicates_workspace_bytes(job.count), "allocating room to sort pages");
    count_duplicates_cuda(job, workspace_, workspace_bytes_, stream_.get());
  }

  void widen_rows(const WidenRowsJob& job) override { widen_rows_cuda(job, stream_.get()); }
  void draw_normals(const NormalJob& job) override { draw_normals_cuda(job, stream_.get()); }
  void multiply_matrices(const MatrixProduct& product) override { solver().run(product); }
  void orthonormalize(const OrthonormalJob& job) override {
    if (takes_blocks(job))
      orthonormalize_cuda(job, stream_.get());
    else
      solver().run(job);
  }
  void find_eigenvectors(const EigenJob& job) override { solver().run(job); }

 private:
  void take_workspace(int64_t bytes, const char* doing) {
    if (bytes <= workspace_bytes_) return;
    free(workspace_);
    workspace_bytes_ = 0;
    workspace_ = pool_.take(bytes, stream_.get());
    if (!workspace_) cuda_check(cudaErrorMemoryAllocation, doing);
    workspace_bytes_ = bytes;
  }

  // Made when it is first asked for, as its libraries take room.
  DeviceSolver& solver() {
    in_order();
    if (!solver_)
      solver_.emplace(raw_.get(),
                      DeviceSolver::Memory{
                          .take = [this](int64_t bytes) { return pool_.take(bytes, raw_.get()); },
                          .give_back = [this](void* memory) { (void)cudaFreeAsync(memory, raw_.get()); }});
    return *solver_;
  }
  int64_t solver_bytes() const { return solver_ ? solver_->workspace_bytes() : 0; }

  void launch(const Launch& launch) override { launch_on(launch, raw_.get()); }
  std::unique_ptr<Recording> record(std::span<const Launch> launches) override {
    try {
      return std::make_unique<Graph>(recorded_.get(), raw_.get(), graph_bytes_, [&](cudaStream_t on) {
        for (const Launch& each : launches) launch_on(each, on);
      });
    } catch (const std::exception& error) {
      (void)cudaGetLastError();  // clears it
      std::fprintf(
          stderr,
          "kvanalyze: warning: %s: the decoder's steps are launched piece by piece, which is slower\n",
          error.what());
      return nullptr;
    }
  }
  void replay(Recording& recording) override { static_cast<Graph&>(recording).run(); }

  void launch_on(const Launch& launch, cudaStream_t on) {
    std::visit([&](const auto& job) { run(job, on); }, launch);
  }
  void run(const DeviceProduct& product, cudaStream_t on) { matmul_.run(product, on); }
  void run(const NormJob& job, cudaStream_t on) { norm_cuda(job, on); }
  void run(const ActivationJob& job, cudaStream_t on) { activate_cuda(job, on); }
  void run(const SumJob& job, cudaStream_t on) { add_cuda(job, on); }
  void run(const GatherJob& job, cudaStream_t on) { gather_cuda(job, on); }
  void run(const CastJob& job, cudaStream_t on) { cast_cuda(job, on); }
  void run(const RopeJob& job, cudaStream_t on) { rope_cuda(job, on); }
  void run(const AppendJob& job, cudaStream_t on) { append_cuda(job, on); }
  void run(const CopyJob& job, cudaStream_t on) {
    cuda_check(cudaMemcpyAsync(job.target, job.source, static_cast<std::size_t>(job.bytes),
                               cudaMemcpyDeviceToDevice, on),
               "copying within the device");
  }
  void run(const AttendJob& launch, cudaStream_t on) {
    attend_cuda(launch.grid, launch.job, launch.merges, launch.out, launch.out_stride, on);
  }

  // The stream for all that is not recorded: what is kept back to be recorded comes first.
  struct InOrder {
    CudaDevice& device;
    cudaStream_t get() const {
      device.in_order();
      return device.raw_.get();
    }
  };

  int ordinal_;
  std::string name_;
  Stream raw_;
  Stream recorded_;  // for nothing but recordings
  InOrder stream_{*this};
  std::atomic<int64_t> graph_bytes_{0};
  Pool pool_;
  std::mutex copying_;
  PinnedCopies copies_;
  Stream side_stream_;  // of fetch()
  std::mutex fetching_;
  std::optional<PinnedCopies> side_copies_;
  DeviceMatmul matmul_;
  std::optional<DeviceSolver> solver_;
  void* workspace_ = nullptr;  // of choose() and count_duplicates()
  int64_t workspace_bytes_ = 0;
};

std::unique_ptr<DeviceOps> open_first(std::string* why_not) {
  constexpr int kDevice = 0;
  cudaDeviceProp properties{};
  cuda_check(cudaSetDevice(kDevice), "choosing a device");
  cuda_check(cudaGetDeviceProperties(&properties, kDevice), "asking for a device's properties");
  if (properties.major < kLeastMajor) {
    *why_not = std::string(properties.name) + " has compute capability " + std::to_string(properties.major) +
               "." + std::to_string(properties.minor) + "; 8.0 or later is needed";
    return nullptr;
  }
  int pools = 0;
  cuda_check(cudaDeviceGetAttribute(&pools, cudaDevAttrMemoryPoolsSupported, kDevice), "asking for pools");
  if (pools == 0) {
    *why_not = std::string(properties.name) + ": its driver has no memory pools";
    return nullptr;
  }
  return std::make_unique<CudaDevice>(kDevice, properties.name);
}

}  // namespace

std::unique_ptr<DeviceOps> make_cuda_device(std::string* why_not) {
  if (cuda_device_count() == 0) {
    *why_not = "the CUDA runtime finds no device";
    return nullptr;
  }
  try {
    return open_first(why_not);
  } catch (const std::exception& error) {
    *why_not = error.what();
    return nullptr;
  }
}

}  // namespace kva
