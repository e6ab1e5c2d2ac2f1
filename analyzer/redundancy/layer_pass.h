// Everything that one layer and side needs while its pages are in memory.
#pragma once

#include <chrono>
#include <memory>
#include <vector>

#include "analyzer/redundancy/all_pairs.h"
#include "analyzer/redundancy/grouping.h"
#include "analyzer/redundancy/growth.h"
#include "analyzer/redundancy/layer_matrix.h"
#include "analyzer/redundancy/redundancy.h"
#include "analyzer/redundancy/set_differences.h"

namespace kva {

// What all passes share.
struct AnalysisContext {
  const PageSet& pages;
  const RedundancyOptions& options;
  const Grouping& grouping;
  const ControlOrders& orders;
  std::vector<float> thresholds;
  ThreadPool& pool;
  // Told how many page pairs are done, of those of the layer; see pairs_of_layer().
  PairProgress progress = {};
  AnalysisEstimate estimate = {};
};

// Page pairs that a pass looks at in each layer, controls included.
int64_t pairs_of_layer(const Grouping& grouping);

// The layers of one side, in order; the layer before stays in memory for its neighbour.
class SidePass {
 public:
  SidePass(const AnalysisContext& context, SideBasis side);
  ~SidePass();

  // Adds the layer's rows to the result.
  void take_layer(int layer, RedundancyResult& result);
  // After the last layer: layer matrix, growth, set differences.
  void finish(RedundancyResult& result);

 private:
  struct Prepared;

  void compare(int layer, const Prepared& now, RedundancyResult& result);
  void add_similarity(int layer, const Prepared& now, const AllPairs& real, const AllPairs& everywhere,
                      const AllPairs& within, RedundancyResult& result) const;
  void add_adjacent(int layer, const Prepared& now, RedundancyResult& result) const;
  void add_shared(int layer, const Prepared& now, RedundancyResult& result) const;
  bool is_stored() const;
  Backend* device() const { return context_.options.device.get(); }
  double seconds_of_layer(const Prepared& now, const PairPlan& plan) const;

  using Clock = std::chrono::steady_clock;

  const AnalysisContext& context_;
  SideBasis side_;
  Clock::time_point started_;  // with the layer under way
  std::unique_ptr<Prepared> before_;
  std::vector<LayerCentre> centres_;
  Growth growth_;
  SetDifferences differences_;
};

// Norms and outlier channels of one layer: fills the K or the V half of `row`.
struct RawPages;
void measure_norms(const RawPages& raw, bool keys, double outlier_factor, ThreadPool& pool, NormRow& row);

}  // namespace kva
