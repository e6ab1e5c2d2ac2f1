// Launches on a device as values, which can be kept back, compared, and recorded to be launched as one.
//
// Nothing says beforehand what a recording depends on: it is used for launches that are equal to its own in
// everything, addresses too, and for no others.
#pragma once

#include <cstdint>
#include <list>
#include <memory>
#include <mutex>
#include <span>
#include <variant>
#include <vector>

#include "kernels/attention_job.h"
#include "kernels/attention_work.h"
#include "kernels/decoder_lanes.h"
#include "kernels/device_product.h"
#include "kernels/encode_lanes.h"

namespace kva {

// DeviceOps' launches that have no job of their own.
struct CopyJob {
  void* target = nullptr;
  const void* source = nullptr;
  int64_t bytes = 0;

  friend bool operator==(const CopyJob&, const CopyJob&) = default;
};
struct AttendJob {
  AttentionGrid grid;
  AttentionJob job;
  const AttentionMerge* merges = nullptr;
  float* out = nullptr;
  int64_t out_stride = 0;

  friend bool operator==(const AttendJob&, const AttendJob&) = default;
};

// What a step of the decoder between its embedding and its head consists of.
using Launch = std::variant<DeviceProduct, NormJob, ActivationJob, SumJob, GatherJob, CastJob, RopeJob,
                            AppendJob, CopyJob, AttendJob>;

// What a device makes of launches that it is to launch as one.
class Recording {
 public:
  virtual ~Recording();
};

// The device that does it. Calls come from one thread at a time.
class Launcher {
 public:
  virtual void launch(const Launch& launch) = 0;
  // Launches nothing. Null where these cannot be recorded.
  virtual std::unique_ptr<Recording> record(std::span<const Launch> launches) = 0;
  virtual void replay(Recording& recording) = 0;

 protected:
  ~Launcher() = default;
};

struct RecordingCounts {
  int64_t recorded = 0;  // recordings made
  int64_t replayed = 0;  // times that one was launched
  int64_t launched =
      0;  // times that a beginning and an end were not: what came was new, or did not stay together

  friend bool operator==(const RecordingCounts&, const RecordingCounts&) = default;
};

// Of one device. Thread-safe: what other threads do to its memory passes through flush().
class LaunchRecorder {
 public:
  // The launcher outlives it, but for its destructor.
  explicit LaunchRecorder(Launcher& launcher) : launcher_(launcher) {}

  void begin();
  // Launches it, or keeps it back.
  void take(Launch launch);
  // Launches what is kept back, one by one; until the next begin() nothing is kept back. To be called before
  // anything else is done to the device.
  void flush();
  // Launches what is kept back: as one where the same came before. Launches are recorded when they come a
  // second time: most never do, and what a device sets up for a first launch need not be recorded.
  void end();

  void keep(int32_t most);
  RecordingCounts counts() const;
  // Forgets everything, what is kept back too.
  void clear();

 private:
  struct Known {
    std::vector<Launch> launches;
    std::unique_ptr<Recording> recording;  // none: they came once
  };

  void launch_kept();
  void use(Known& known);

  Launcher& launcher_;
  mutable std::mutex mutex_;
  bool keeping_ = false;
  std::vector<Launch> kept_;
  int32_t most_ = 8;
  std::list<Known> known_;  // the latest first
  RecordingCounts counts_;
};

}  // namespace kva
