// PagedAttention's job where pages are on a device: new tokens go into their pages there, and every query
// head reads the pages as they are stored (kernels/attention_work.h). Page tables stay with the host, which
// says what is read.
//
// A decoding step begins with the uploads for all layers: the positions of its tokens; a plan for layers
// whose tables are alike: 44 bytes for every 512 tokens and 4 query rows of a table and, where pages came or
// went, 4 for each page; and for each layer an address pair for each new token and KV head, and the entry of
// each table's last page, 72 bytes. Where a page begins or a plan has changed pages, those pages' entries
// come on top; where positions are relative to the cache, so does one for each token and KV head. What it
// launches after that is the same for many steps, whatever they read.
//
// A table has so many states at most, whatever its length, so that the workspace grows with the batch, and
// with the context by the plan's 4 bytes a page only.
#pragma once

#include <cstdint>
#include <span>
#include <string_view>
#include <vector>

#include "kernels/device_ops.h"
#include "kernels/views.h"
#include "runtime/backend/backend.h"
#include "runtime/kv/byte_ledger.h"
#include "runtime/kv/device_array.h"
#include "runtime/kv/device_masses.h"
#include "runtime/kv/device_plans.h"
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

  // Begins a step of so many rows: uploads what the layers' append() and attend() read. The spans' tables
  // have room for the step's rows, and stay as they are until the next step.
  void begin_step(const SpansOf& spans, int64_t rows);

  // Writes the step's rows of one layer into the last pages of the spans' tables.
  // k, v: [rows, kv_heads * head_dim], on the device, without gaps, K before RoPE.
  void append(int layer, MatView<const float> k, MatView<const float> v);

  // As PagedAttention::attend(), with addresses on the device. A sequence's results depend on neither its
  // company nor how other tables are cut. Of a step of decoding what is observed comes with end_step().
  void attend(int layer, std::span<DeviceSpan> spans, MatView<const float> q, MatView<float> out);

  // Ends the step that began with the same spans: what was observed and is not with them yet is brought.
  void end_step(const SpansOf& spans);

  // Spent on observing so far.
  double observe_seconds() const { return masses_.seconds(); }
  void forget(SequenceId sequence) { tables_.forget(sequence); }

  // Adds tables and workspace.
  void add_to(ByteLedger& ledger) const;

 private:
  void place_rows(std::span<const DeviceSpan> spans, int64_t rows);
  void place_queries(const SpansOf& spans, int64_t rows);
  void aim(int layer, std::span<const DeviceSpan> spans, int64_t rows);
  AttentionJob job(int layer, const DevicePlan& of, MatView<const float> q);
  const float* turned(int layer, MatView<const float> q);

  const KvCacheOptions& options_;
  PageStore& store_;
  DeviceOps& device_;
  DeviceTables tables_;
  DeviceMasses masses_;
  DevicePlans plans_;
  AppendJob append_;  // what is the same in every step
  DeviceArray<float> frequencies_;
  KeyTurning turning_ = KeyTurning::kNone;
  DeviceArray<int64_t> positions_, offsets_;  // of the step's rows
  // Where positions are relative to the cache: of the step's queries, [layer, row, KV head].
  DeviceArray<int64_t> query_positions_;
  std::vector<AppendTarget> row_targets_;  // [layer, row, KV head]
  DeviceArray<AppendTarget> targets_;
  DeviceArray<float> queries_, coordinates_;  // the latter: a plan's queries, then its sums
  DeviceArray<float> states_;                 // o [states, head_dim], m [states], l [states]
};

}  // namespace kva
