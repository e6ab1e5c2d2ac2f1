// The folder of a run: one run at a time, a line for each finished trial that survives whatever comes after
// it.
#pragma once

#include <cstdint>
#include <map>
#include <nlohmann/json_fwd.hpp>
#include <string>
#include <string_view>
#include <vector>

#include "reports/experiments/trials.h"

namespace kva {

inline constexpr const char* kResultsFile = "results.jsonl";

// One line of a results file. Throws InputError where it has no trial or no status.
nlohmann::ordered_json parse_row(std::string_view line, const std::string& source);

// Rows of a results file, front to back. A last line without its end, or that is no JSON, is what a kill
// left: `whole_bytes` says how far the file is good. Throws InputError, naming the line, for any other that
// is no row.
struct ReadRows {
  std::vector<nlohmann::ordered_json> rows;
  int64_t whole_bytes = 0;
};
ReadRows read_rows(const std::string& path);

// Holds the folder's lock while it lives: several shards may share a folder, each with a file of its own
// (results.shard-1-of-4.jsonl); a run that is no shard has the folder to itself, and takes over the rows of
// such files into results.jsonl. The lock ends with the process, however that ends.
class ResultsFolder {
 public:
  // Makes the folder where it is missing. Throws InputError where another run holds it, or it cannot be
  // written.
  ResultsFolder(const std::string& folder, const Shard& shard);
  ~ResultsFolder();
  ResultsFolder(const ResultsFolder&) = delete;
  ResultsFolder& operator=(const ResultsFolder&) = delete;

  // The row of a finished trial, or null.
  const nlohmann::ordered_json* row(const std::string& trial) const;
  std::size_t rows() const { return rows_.size(); }

  // On disk when it returns. Throws InputError where the disk is full; the row is then not counted.
  void append(const nlohmann::ordered_json& row);

  const std::string& path() const { return folder_; }

 private:
  void lock(const Shard& shard);
  void open_results(const std::string& name);
  void join_shards();

  std::string folder_;
  std::string results_;     // the file that grows
  std::vector<int> locks_;  // file descriptors
  int file_ = -1;
  std::map<std::string, nlohmann::ordered_json> rows_;  // by trial
};

}  // namespace kva
