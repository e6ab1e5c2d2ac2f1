// The part of DeviceOps that a recording consists of: a device derives from this and says how each of these
// jobs is launched.
#pragma once

#include "kernels/device_ops.h"
#include "kernels/launch_recorder.h"

namespace kva {

// Whatever else the device does, it calls in_order() before it: but for allocate() and asking for facts.
class RecordedDevice : public DeviceOps, protected Launcher {
 public:
  void copy(void* target, const void* source, int64_t bytes) override {
    recorder_.take(CopyJob{target, source, bytes});
  }
  void multiply(const DeviceProduct& product) override { recorder_.take(product); }
  void normalise(const NormJob& job) override { recorder_.take(job); }
  void activate(const ActivationJob& job) override { recorder_.take(job); }
  void add(const SumJob& job) override { recorder_.take(job); }
  void gather(const GatherJob& job) override { recorder_.take(job); }
  void cast(const CastJob& job) override { recorder_.take(job); }
  void rotate(const RopeJob& job) override { recorder_.take(job); }
  void append(const AppendJob& job) override { recorder_.take(job); }
  void attend(const AttentionGrid& grid, const AttentionJob& job, const AttentionMerge* merges, float* out,
              int64_t out_stride) override {
    recorder_.take(AttendJob{grid, job, merges, out, out_stride});
  }

  void begin_recording() override { recorder_.begin(); }
  void end_recording() override { recorder_.end(); }
  void keep_recordings(int32_t most) override { recorder_.keep(most); }
  RecordingCounts recordings() const override { return recorder_.counts(); }

 protected:
  void in_order() { recorder_.flush(); }
  // A device's destructor calls it while it can still let go of recordings.
  void forget_recordings() { recorder_.clear(); }

 private:
  LaunchRecorder recorder_{*this};
};

}  // namespace kva
