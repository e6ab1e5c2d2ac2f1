#include "kernels/launch_recorder.h"

#include <algorithm>
#include <utility>

#include "kernels/check.h"

namespace kva {

Recording::~Recording() = default;

void LaunchRecorder::begin() {
  const std::scoped_lock lock(mutex_);
  if (keeping_) launch_kept();
  keeping_ = most_ > 0;
}

void LaunchRecorder::take(Launch launch) {
  const std::scoped_lock lock(mutex_);
  if (keeping_)
    kept_.push_back(std::move(launch));
  else
    launcher_.launch(launch);
}

void LaunchRecorder::flush() {
  const std::scoped_lock lock(mutex_);
  if (keeping_) launch_kept();
}

void LaunchRecorder::launch_kept() {
  keeping_ = false;
  ++counts_.launched;
  const std::vector<Launch> launches = std::exchange(kept_, {});
  for (const Launch& launch : launches) launcher_.launch(launch);
}

void LaunchRecorder::end() {
  const std::scoped_lock lock(mutex_);
  if (!keeping_) return;
  const auto same =
      std::find_if(known_.begin(), known_.end(), [&](const Known& known) { return known.launches == kept_; });
  if (same == known_.end()) {
    known_.push_front({kept_, nullptr});
    if (std::ssize(known_) > most_) known_.pop_back();
    return launch_kept();
  }
  known_.splice(known_.begin(), known_, same);
  use(*same);
}

void LaunchRecorder::use(Known& known) {
  if (!known.recording) {
    known.recording = launcher_.record(known.launches);
    if (!known.recording) {
      most_ = 0;
      known_.clear();
      return launch_kept();
    }
    ++counts_.recorded;
  }
  keeping_ = false;
  kept_.clear();
  ++counts_.replayed;
  launcher_.replay(*known.recording);
}

void LaunchRecorder::keep(int32_t most) {
  KVA_CHECK(most >= 0, "a number of recordings");
  const std::scoped_lock lock(mutex_);
  if (keeping_) launch_kept();
  most_ = most;
  while (std::ssize(known_) > most_) known_.pop_back();
}

RecordingCounts LaunchRecorder::counts() const {
  const std::scoped_lock lock(mutex_);
  return counts_;
}

void LaunchRecorder::clear() {
  const std::scoped_lock lock(mutex_);
  keeping_ = false;
  kept_.clear();
  known_.clear();
}

}  // namespace kva
