// The attention that a device's tables receive: what PagedAttention's second pass is on a device. The device
// sums over a step's queries; the sums of a layer come to the host, which keeps masses by position
// (attention_masses.h): 12 bytes a token and KV head for every layer and step that is observed.
#pragma once

#include <cstdint>
#include <span>
#include <vector>

#include "kernels/attention_job.h"
#include "kernels/attention_work.h"
#include "runtime/backend/backend.h"
#include "runtime/kv/attention_masses.h"
#include "runtime/kv/device_array.h"
#include "runtime/kv/device_tables.h"
#include "runtime/kv/page_store.h"

namespace kva {

// Everything passed to the constructor outlives it. Used by one thread at a time.
class DeviceMasses {
 public:
  DeviceMasses(const PageStore& store, Backend& backend, int heads, int kv_heads);

  // Whether anyone asked for what these spans give.
  bool wanted(std::span<const DeviceSpan> spans) const;
  // What of the spans a plan of observation follows from.
  void describe(std::span<const DeviceSpan> spans, std::vector<int64_t>& description) const;
  // Prepares for the plan, whose page list still counts `pages`. Tables are in the order of the spans and
  // their KV heads.
  void plan(std::span<const DeviceSpan> spans, const AttentionPlan& plan, std::span<const DevicePage> pages,
            std::span<const AttentionTable> tables, int64_t batch_rows);
  // What attention is to observe by the latest plan.
  MassJob job() const;
  // Adds what it observed to the spans' masses.
  void collect(std::span<const DeviceSpan> spans);

  int64_t held_bytes() const;
  double seconds() const { return seconds_; }  // spent in collect() so far

 private:
  void add(const MassTargets& targets, const PageTable& table, const float*& sums) const;

  const PageStore& store_;
  Backend& backend_;
  int heads_;
  int kv_heads_;
  int64_t rows_ = 0;    // of the batch
  int64_t tokens_ = 0;  // of all tables
  int32_t entries_ = 0;
  DeviceArray<MassPage> pages_;
  DeviceArray<MassTable> tables_;
  DeviceArray<float> finals_;  // max, then sum: [rows_, heads_]
  DeviceArray<float> sums_;    // all, late, near: [tokens_]
  std::vector<float> here_;    // the same
  double seconds_ = 0.0;
};

}  // namespace kva
