// What the attention of a step launches, by layer: layers whose tables are alike share a plan.
#pragma once

#include <cstdint>
#include <memory>
#include <span>
#include <string_view>
#include <vector>

#include "kernels/attention_work.h"
#include "runtime/backend/backend.h"
#include "runtime/kv/device_array.h"
#include "runtime/kv/device_masses.h"
#include "runtime/kv/device_tables.h"
#include "runtime/kv/kv_cache.h"

namespace kva {

// A plan, and on the device what launches read of it.
struct DevicePlan {
  DevicePlan(Backend& backend, std::string_view purpose)
      : items(backend, purpose),
        page_list(backend, purpose),
        merges(backend, purpose),
        projections(backend, purpose),
        lifts(backend, purpose),
        masses(backend, purpose) {}

  AttentionPlan plan;             // its pages are counted in `pages`
  std::vector<DevicePage> pages;  // like those of the tables, in the tables' order
  std::vector<AttentionTable> tables;
  DeviceArray<AttentionItem> items;
  DeviceArray<int32_t> page_list;  // by the places of entries
  DeviceArray<AttentionMerge> merges;
  DeviceArray<AttentionProjection> projections;  // their pages too
  DeviceArray<AttentionLift> lifts;
  MassPlan masses;  // where the layer is observed

 private:
  friend class DevicePlans;
  std::vector<int64_t> asked;  // all that the plan follows from
  std::vector<int32_t> places_there;
  std::vector<AttentionMerge> merges_there;
};

// Everything passed to the constructor outlives it. Used by one thread at a time.
class DevicePlans {
 public:
  DevicePlans(const KvCacheOptions& options, const DeviceTables& tables, const DeviceMasses& masses,
              Backend& backend);

  // Plans of all layers for a step whose tables are up to date. Throws InputError when out of memory.
  void make(const SpansOf& spans);

  const DevicePlan& of(int layer) const { return *plans_[of_layers_[static_cast<std::size_t>(layer)]]; }
  int64_t most_states() const;       // of a plan
  int64_t most_coordinates() const;  // the same in numbers

  int64_t held_bytes() const;

 private:
  void describe(int layer, std::span<const DeviceSpan> spans);
  void fill(DevicePlan& plan, int layer, std::span<const DeviceSpan> spans);
  void list_pages(DevicePlan& plan, int layer, std::span<const DeviceSpan> spans);
  void upload(DevicePlan& plan);

  const KvCacheOptions& options_;
  const DeviceTables& tables_;
  const DeviceMasses& masses_;
  Backend& backend_;
  std::vector<std::unique_ptr<DevicePlan>> plans_;  // of a step the first count_
  std::size_t count_ = 0;
  std::vector<std::size_t> of_layers_;
  std::vector<int64_t> asked_;
  std::vector<int32_t> places_;  // of the entries of the pages listed last
};

}  // namespace kva
