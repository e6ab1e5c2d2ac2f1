// The redundancy report: analysis of a page set, joined with the facts of the run that captured it.
#pragma once

#include <nlohmann/json.hpp>

#include "analyzer/redundancy/redundancy.h"
#include "kernels/parallel.h"
#include "reports/progress.h"
#include "reports/provenance.h"
#include "reports/run_device.h"
#include "runtime/kv/page_set.h"

namespace kva {

struct RedundancyReport {
  nlohmann::ordered_json json;  // report.json, of kind "redundancy" (docs/formats.md)
  std::string partners_csv;     // the most similar pages of each page
};

// Where pages are analysed: on `device`, or where that has not the memory on the CPU for auto, which is said,
// and an InputError for cuda.
std::shared_ptr<Backend> analysis_backend(RunDevice device, const DeviceChoice& choice, const PageSet& pages,
                                          const RedundancyOptions& analysis, const Say& say);

// `facts` come from run_capture(), of this process or as a capture's manifest kept them.
RedundancyReport make_redundancy_report(const PageSet& pages, const nlohmann::ordered_json& facts,
                                        const RedundancyOptions& analysis, const RunStamp& stamp,
                                        ThreadPool& pool, Progress& progress);

}  // namespace kva
