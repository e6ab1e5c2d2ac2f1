// The attention that a device's tables receive: what PagedAttention's second pass is on a device. The device
// sums over a step's queries; the sums come to the host, which keeps masses by position
// (attention_masses.h): 4 bytes a token and KV head for every layer and step, and for each of all, late, near
// and mapped attention that is asked for; a map has them for each block of the step's queries.
//
// A step of decoding, whose launches are recorded, leaves the sums of all its layers on the device until it
// ends; any other brings those of a layer as soon as they are there, so that workspace is for one layer.
#pragma once

#include <cstdint>
#include <functional>
#include <span>
#include <string_view>
#include <vector>

#include "kernels/attention_job.h"
#include "kernels/attention_work.h"
#include "runtime/backend/backend.h"
#include "runtime/kv/attention_masses.h"
#include "runtime/kv/device_array.h"
#include "runtime/kv/device_tables.h"
#include "runtime/kv/page_store.h"

namespace kva {

// What observation reads beside an attention plan, and where it leaves its sums.
struct MassPlan {
  MassPlan(Backend& backend, std::string_view purpose) : pages(backend, purpose), tables(backend, purpose) {}

  DeviceArray<MassPage> pages;  // of the plan's page list; of decoding, padded by such that do nothing
  DeviceArray<MassTable> tables;
  std::vector<MassPage> pages_there;
  std::vector<MassTable> tables_there;
  int64_t room = 0;         // sums of a table
  int64_t map_numbers = 0;  // sums of all tables' maps

  int64_t numbers() const { return room * std::ssize(tables_there); }
  int64_t held_bytes() const { return pages.held_bytes() + tables.held_bytes(); }
};

// Everything passed to the constructor outlives it. Used by one thread at a time.
class DeviceMasses {
 public:
  DeviceMasses(const PageStore& store, Backend& backend, int layers, int heads, int kv_heads);

  // Whether anyone asked for what these spans give.
  bool wanted(std::span<const DeviceSpan> spans) const;
  // What of the spans a plan of observation follows from.
  void describe(std::span<const DeviceSpan> spans, std::vector<int64_t>& description) const;
  // Prepares and uploads it for an attention plan, whose page list still counts `pages`. Tables are in the
  // order of the spans and their KV heads.
  void plan(std::span<const DeviceSpan> spans, const AttentionPlan& plan, std::span<const DevicePage> pages,
            std::span<const AttentionTable> tables, MassPlan& to) const;

  // Whatever a step that failed left is gone.
  void forget_step() { slots_.clear(); }
  using PlanOf = std::function<const MassPlan&(int layer)>;
  // Begins a step of so many rows; the plans stay as they are until it ends. Throws InputError when out of
  // memory.
  void begin_step(const SpansOf& spans, int64_t rows, const PlanOf& plans);
  // What the layer's attention is to observe; nothing, where nobody asked.
  MassJob job(int layer) const;
  // The layer's attention is launched.
  void attended(int layer, std::span<const DeviceSpan> spans);
  void end_step(const SpansOf& spans);

  int64_t held_bytes() const;
  double seconds() const { return seconds_; }  // spent bringing sums so far

 private:
  // One layer that is observed in this step, and where its sums are on the device.
  struct Slot {
    const MassPlan* plan = nullptr;  // null: it is not observed
    int64_t at = 0;
  };
  // Where sums of a kind begin in a layer's; -1: nobody asked for them.
  struct Kinds {
    int64_t all = -1;
    int64_t late = -1;
    int64_t near = -1;
    int64_t map = -1;
    int64_t end = 0;
  };

  void lay_out(const SpansOf& spans);
  void collect(const SpansOf& spans, int first_layer, int end_layer);
  void add(const MassPlan& plan, std::span<const DeviceSpan> spans, const float* sums) const;
  void add(const MassTargets& targets, const DeviceSpan& of, const PageTable& table,
           const MassTable& observed, int64_t first, const float* sums) const;

  const PageStore& store_;
  Backend& backend_;
  int layers_;
  int heads_;
  int kv_heads_;
  int64_t rows_ = 0;         // of the batch
  bool waits_ = false;       // for the step's end
  std::vector<Slot> slots_;  // by layer, or empty: nothing is observed
  Kinds kinds_;
  DeviceArray<float> finals_;  // max, then sum: [rows_, heads_]
  DeviceArray<float> sums_;    // [slots, kinds_.end]
  std::vector<float> here_;    // of some layers
  double seconds_ = 0.0;
};

}  // namespace kva
