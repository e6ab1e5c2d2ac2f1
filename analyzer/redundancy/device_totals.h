// What comes out of all pairs of pages, while it is summed up on a device.
#pragma once

#include <cstdint>
#include <vector>

#include "analyzer/redundancy/all_pairs.h"
#include "kernels/similarity_job.h"
#include "runtime/kv/device_array.h"

namespace kva {

// Pages, grouping, plan and backend outlive it. Throws InputError where the device has not the memory.
class DeviceTotals {
 public:
  DeviceTotals(const PageMatrix& pages, const Grouping& grouping, const PairPlan& plan, Backend& backend);

  // Where the metrics of `kind` go: those of a head, resp. the groups of kJoinedHeads; those within prompts.
  PairOutputs of_scope(int head, PairKind kind) const;
  PairOutputs of_prompts(PairKind kind) const;
  // Where the job also puts partners and heat, as far as the plan wants them.
  void add_partners_and_heat(PairJob& job) const;

  // Waits for the device.
  AllPairs read() const;

 private:
  // One scope's arrays: of metric m, the m-th of each.
  struct Scope {
    Scope(Backend& backend, int64_t groups, int64_t pages, int bests);

    int64_t groups;
    int bests;                         // in set, across, earlier, later
    DeviceArray<PairSums> totals;      // [kMetrics, groups]
    DeviceArray<uint64_t> histograms;  // [kMetrics, groups, kHistogramBins]
    DeviceArray<int32_t> best;         // [bests, kMetrics, pages]
  };

  int32_t* best_of(const Scope& scope, int which, int metric) const {
    return scope.best.data() + (int64_t{which} * kMetrics + metric) * pages_;
  }
  void read_scope(const Scope& scope, std::array<MetricTotals, kMetrics>& to) const;
  void read_prompts(std::array<MetricTotals, kMetrics>& to) const;
  void read_partners_and_heat(AllPairs& to) const;

  const PageMatrix& matrix_;
  const Grouping& grouping_;
  const PairPlan& plan_;
  Backend& backend_;
  int64_t pages_;
  std::vector<Scope> scopes_;       // each head, where asked for, and joined last
  DeviceArray<PairSums> prompts_;   // [kMetrics, prompts]
  DeviceArray<uint64_t> partners_;  // [pages, plan.partners]
  DeviceArray<int32_t> heat_bin_;   // [pages]
  DeviceArray<uint64_t> heat_;      // sums, then counts
};

}  // namespace kva
