// PagedAttention's job where pages are on a device: new tokens go into their pages there, and every query
// head reads the pages as they are stored (kernels/attention_work.h). Page tables stay with the host, which
// says what is read.
//
// A decoding step uploads the positions of its tokens; the plan, once for neighbouring layers whose tables
// are alike: 32 bytes for every 512 tokens and 4 query rows of a table and 4 for each page; and for each
// layer an address pair for each new token and KV head, and the entry of each table's last page, 72 bytes.
// Where a page begins or a plan has changed pages, those pages' entries come on top.
//
// A table has so many states at most, whatever its length, so that the workspace grows with the batch, and
// with the context by the plan's 4 bytes a page only.
#pragma once

#include <cstdint>
#include <span>
#include <string_view>
#include <vector>

#include "kernels/attention_work.h"
#include "kernels/device_ops.h"
#include "kernels/views.h"
#include "runtime/backend/backend.h"
#include "runtime/kv/byte_ledger.h"
#include "runtime/kv/device_array.h"
#include "runtime/kv/device_masses.h"
#include "runtime/kv/device_tables.h"
#include "runtime/kv/kv_cache.h"
#include "runtime/kv/page_store.h"
#include "runtime/kv/plan.h"

namespace kva {

// Throws InputError, naming what it is and what to do, for a cache that a device cannot hold yet.
void check_device_options(const KvCacheOptions& options);
// The same for sides that a plan brings to such a cache.
void check_device_plan(const Plan& plan, const KvCacheOptions& options);

// Everything passed to the constructor outlives the object. Used by one thread at a time.
class DeviceAttention {
 public:
  // backend: a device's.
  DeviceAttention(const KvCacheOptions& options, PageStore& store, Backend& backend, Backend& host);

  // Writes the step's rows of one layer into the last pages of the spans' tables, which have room for them.
  // k, v: [rows, kv_heads * head_dim], on the device, without gaps, K before RoPE.
  void append(std::span<const DeviceSpan> spans, MatView<const float> k, MatView<const float> v);

  // As PagedAttention::attend(), with addresses on the device. A sequence's results depend on neither its
  // company nor how other tables are cut.
  void attend(int layer, std::span<DeviceSpan> spans, MatView<const float> q, MatView<float> out);

  // Spent on observing so far.
  double observe_seconds() const { return masses_.seconds(); }
  void forget(SequenceId sequence) { tables_.forget(sequence); }

  // Adds tables and workspace.
  void add_to(ByteLedger& ledger) const;

 private:
  void place_rows(std::span<const DeviceSpan> spans, int64_t rows);
  void plan(int layer, std::span<const DeviceSpan> spans, int64_t rows);
  void describe(int layer, std::span<const DeviceSpan> spans);
  void list_pages(int layer, std::span<const DeviceSpan> spans);
  AttentionJob job(int layer, MatView<const float> q);
  const float* turned(MatView<const float> q);

  const KvCacheOptions& options_;
  PageStore& store_;
  DeviceOps& device_;
  DeviceTables tables_;
  DeviceMasses masses_;
  bool observing_ = false;  // the call under way
  AppendJob append_;        // what is the same in every step
  DeviceArray<float> frequencies_;
  KeyTurning turning_ = KeyTurning::kNone;
  std::vector<int64_t> row_positions_;  // of the step, as they are on the device
  DeviceArray<int64_t> positions_, offsets_;
  std::vector<AppendTarget> row_targets_;
  DeviceArray<AppendTarget> targets_;
  // What the plan was made for: places of the step's spans and the shapes of their tables.
  std::vector<int64_t> asked_, planned_;
  std::vector<DevicePage> plan_pages_;  // that are like those of the tables
  std::vector<int32_t> plan_places_;    // of their entries
  std::vector<AttentionTable> plan_tables_;
  AttentionPlan plan_;
  DeviceArray<AttentionItem> items_;
  DeviceArray<int32_t> page_list_;
  DeviceArray<AttentionMerge> merges_;
  DeviceArray<AttentionProjection> projections_;
  DeviceArray<AttentionLift> lifts_;
  DeviceArray<float> queries_, coordinates_;  // the latter: the plan's queries, then its sums
  DeviceArray<float> states_;                 // o [states, head_dim], m [states], l [states]
};

}  // namespace kva
