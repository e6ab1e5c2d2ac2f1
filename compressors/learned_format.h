// A format with a codebook for each layer and side, learnt from a calibration text: what nuq and pq have in
// common.
#pragma once

#include <cstdint>
#include <memory>
#include <span>
#include <string>
#include <vector>

#include "compressors/sample_pages.h"
#include "compressors/step.h"

namespace kva {

class LearnedFormat : public Step {
 public:
  // name: of the method, for errors.
  explicit LearnedFormat(std::string name) : name_(std::move(name)) {}

  bool needs_sample() const final { return true; }

  // Learns every codebook, one layer and side a work item. Throws InputError for a sample that is too small
  // or holds numbers that are not finite.
  void fit(const StepContext& context, const PageSet& sample) final;

  bool reads_numbers() const final { return false; }

  // Throws InputError where no sample was learnt from.
  void run(const StepContext& context, Draft& draft) final;
  void outline(const StepContext& context, Draft& draft) final;

 protected:
  const std::string& name() const { return name_; }

  // Numbers of a codebook for these cells. Deterministic and thread-safe; the sample has at least one page.
  virtual std::vector<float> learn(const StepContext& context, const PageSet& sample,
                                   const LayerSide& of) const = 0;
  // How many they are.
  virtual int64_t codebook_numbers(const StepContext& context) const = 0;
  // The codec that uses it.
  virtual std::shared_ptr<const SideCodec> make(const StepContext& context, const LayerSide& of,
                                                std::span<const float> codebook) const = 0;
  // Why the stream cannot be stored so; empty where it can.
  virtual std::string refusal(const StepContext&, const DraftStream&) const { return ""; }

 private:
  std::string name_;
  std::vector<std::shared_ptr<const SideCodec>> codecs_;  // by side_index()
};

// As the sample's reader, but throws InputError, in the name of `method`, for numbers that are not finite.
void read_finite_sample(const std::string& method, const PageSet& sample, const Cell& cell, int64_t page,
                        MatView<float> rows);

}  // namespace kva
