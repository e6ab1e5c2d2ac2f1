// A folder of ours that appears whole: written under another name beside its place and renamed at the end.
#pragma once

#include <cstdint>
#include <functional>
#include <string>

namespace kva {

// An earlier folder of the same kind is replaced at install(); one that holds anything else is refused.
// Without install() nothing is left.
class NewFolder {
 public:
  using IsOurs = bool (*)(const std::string& name);

  // kind: "capture", for errors. is_ours: whether a name is one of the folder's; manifest.json always is, and
  // a folder with other names but without it is refused. Throws InputError where the folder cannot be written
  // or holds other files.
  NewFolder(const std::string& folder, std::string kind, IsOurs is_ours);
  ~NewFolder();
  NewFolder(const NewFolder&) = delete;
  NewFolder& operator=(const NewFolder&) = delete;

  // Where a file, or without a name the folder itself, is until install().
  std::string path(const std::string& name = "") const;
  // Bytes that are free on its disk.
  int64_t free_bytes() const;
  // Throws InputError; the folder then is as it was.
  void install();

 private:
  void check_replaceable() const;

  std::string folder_;     // where it will be
  std::string temporary_;  // where it is written; empty once moved
  std::string kind_;
  IsOurs is_ours_;
};

}  // namespace kva
