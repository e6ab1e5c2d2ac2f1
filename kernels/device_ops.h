// A device as decoder, cache and analyzer use it: its memory, and every computation that they launch there.
// CUDA is one (device_ops_cuda.cu); tests have another, which takes the same lane code through loops on the
// host, so that all that decides what is launched, and with which addresses, is tested without a GPU.
//
// Everything happens in the order of the calls; only download() and wait() wait for it, and fetch() for what
// came before a mark. Addresses in jobs are the device's. Memory is for any thread at any time; computations
// are launched by one thread at a time.
// Throws std::runtime_error where the device fails.
#pragma once

#include <cstddef>
#include <cstdint>
#include <memory>
#include <optional>
#include <span>
#include <string>

#include "kernels/attention_job.h"
#include "kernels/attention_work.h"
#include "kernels/cover_job.h"
#include "kernels/decoder_lanes.h"
#include "kernels/device_product.h"
#include "kernels/duplicates_lanes.h"
#include "kernels/encode_lanes.h"
#include "kernels/launch_recorder.h"
#include "kernels/nearest_lanes.h"
#include "kernels/pack_job.h"
#include "kernels/projection_lanes.h"
#include "kernels/sampling_lanes.h"
#include "kernels/similarity_job.h"
#include "kernels/solver_lanes.h"
#include "kernels/unpack_lanes.h"

namespace kva {

struct DeviceMemory {
  int64_t total_bytes = 0;
  int64_t free_bytes = 0;  // that allocate() can still give
  int64_t used_bytes = 0;  // as the driver counts: of all programs
  int64_t peak_bytes = 0;  // the most that allocate() and the computations' workspace had at once
};

// Bytes that are to be brought to the host.
struct DevicePiece {
  void* target = nullptr;
  const void* source = nullptr;
  int64_t bytes = 0;
};

// A place in the order of what a device is told to do. The device outlives it.
class DeviceMark {
 public:
  virtual ~DeviceMark() = default;
};

class DeviceOps {
 public:
  virtual ~DeviceOps();

  virtual std::string name() const = 0;  // "NVIDIA H200"
  // Its number among CUDA's devices, for libraries that compute on its memory; none: it is not one of them.
  virtual std::optional<int> cuda_ordinal() const { return std::nullopt; }
  virtual DeviceMemory memory() const = 0;
  // Held by the computations themselves, beside what allocate() gave.
  virtual int64_t workspace_bytes() const = 0;

  // Uninitialised memory, aligned to 256 bytes; nullptr where the device has no more. bytes > 0.
  virtual void* allocate(int64_t bytes) = 0;
  // What was launched before may still use it.
  virtual void free(void* memory) noexcept = 0;
  // `source` may change as soon as the call returns.
  virtual void upload(void* target, const void* source, int64_t bytes) = 0;
  // The bytes are there when the call returns.
  virtual void download(void* target, const void* source, int64_t bytes) = 0;
  virtual std::unique_ptr<DeviceMark> mark() = 0;
  // The pieces as they are at the mark, beside whatever was told since: nothing of that writes them. The
  // bytes are there when the call returns.
  virtual void fetch(std::span<const DevicePiece> pieces, const DeviceMark& from) = 0;
  // Within the device; the two do not overlap.
  virtual void copy(void* target, const void* source, int64_t bytes) = 0;
  virtual void wait() = 0;

  virtual void multiply(const DeviceProduct& product) = 0;
  virtual void normalise(const NormJob& job) = 0;
  virtual void activate(const ActivationJob& job) = 0;
  virtual void add(const SumJob& job) = 0;
  virtual void gather(const GatherJob& job) = 0;
  virtual void cast(const CastJob& job) = 0;
  virtual void rotate(const RopeJob& job) = 0;
  // *token = the next token; -1 - i where the logit of token i is NaN or +inf. job.order is chosen here.
  virtual void choose(const SampleJob& job, int32_t* token) = 0;

  virtual void append(const AppendJob& job) = 0;
  virtual void place(const PlaceJob& job) = 0;
  virtual void pack(const PackJob& job) = 0;
  virtual void unpack(const UnpackJob& job) = 0;
  virtual void project(const ProjectionJob& job) = 0;
  // Runs the items of the grid's buckets and, by the plan's merges, merges states into out [batch rows,
  // kv_heads * group * head_dim]; either may be none. job.items and job.page_list, and merges, are the
  // plan's, uploaded. With merges, job.masses is observed where it is asked for.
  virtual void attend(const AttentionGrid& grid, const AttentionJob& job, const AttentionMerge* merges,
                      float* out, int64_t out_stride) = 0;

  virtual void nearest(const NearestJob& job) = 0;
  virtual void count_bits(const BitCountJob& job) = 0;
  virtual void compare_pairs(const PairJob& job) = 0;
  virtual void cover(const CoverJob& job) = 0;
  virtual void count_duplicates(const DuplicateJob& job) = 0;

  // To fit bases. The libraries' workspace is taken for the call, and counts in memory().peak_bytes.
  virtual void widen_rows(const WidenRowsJob& job) = 0;
  virtual void draw_normals(const NormalJob& job) = 0;
  virtual void multiply_matrices(const MatrixProduct& product) = 0;
  virtual void orthonormalize(const OrthonormalJob& job) = 0;
  virtual void find_eigenvectors(const EigenJob& job) = 0;

  // What is launched from here to end_recording() is likely to be launched just so again. The device may keep
  // it back until then, and launch it as one where it came before: a recording (CUDA's graphs). Whatever else
  // is asked of it meanwhile, such as an upload, still comes after what was launched before, and ends the
  // recording: results are always those of launching everything as it comes.
  virtual void begin_recording() = 0;
  virtual void end_recording() = 0;
  // How many are kept, of those used last; 0: none is made. A few by default.
  virtual void keep_recordings(int32_t most) = 0;
  virtual RecordingCounts recordings() const = 0;
};

}  // namespace kva
