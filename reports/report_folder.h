// A folder that gets all of its new files or none of them.
#pragma once

#include <string>
#include <vector>

namespace kva {

// Files are made in staging(); publish() moves every entry of it into the folder, replacing those of the same
// name and leaving all others. A folder that is missing is made, and not left behind without publish(). What
// publish() replaces is restored where a later move fails. A plots/ folder is the report's own: a report
// without plots takes an old one away; likewise images/ (attention_maps.h), which files that are no report
// leave alone. What users keep in either stays. Throws InputError where it cannot write.
class ReportFolder {
 public:
  explicit ReportFolder(const std::string& folder);
  ~ReportFolder();
  ReportFolder(const ReportFolder&) = delete;
  ReportFolder& operator=(const ReportFolder&) = delete;

  const std::string& staging() const { return staging_; }
  void publish();

 private:
  void exchange_all(const std::vector<std::string>& names);

  std::string folder_;
  std::string staging_;
  bool exists_ = false;
};

}  // namespace kva
