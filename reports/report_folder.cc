#include "reports/report_folder.h"

#include <fcntl.h>
#include <fmt/format.h>
#include <stdio.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <cerrno>
#include <cstring>
#include <filesystem>

#include "reports/attention_maps.h"
#include "runtime/error.h"
#include "runtime/interrupt.h"
#include "runtime/io/file.h"

namespace kva {
namespace {

namespace fs = std::filesystem;

bool is_there(const fs::path& path) {
  std::error_code ignored;
  return fs::symlink_status(path, ignored).type() != fs::file_type::not_found;
}

// Puts `fresh` in the place of `old`, and what was there in the place of `fresh`.
bool exchange(const fs::path& fresh, const fs::path& old) {
  const bool have_fresh = is_there(fresh);
  if (have_fresh && !is_there(old)) return ::rename(fresh.c_str(), old.c_str()) == 0;
  if (!have_fresh) return ::rename(old.c_str(), fresh.c_str()) == 0;
  if (::renameat2(AT_FDCWD, fresh.c_str(), AT_FDCWD, old.c_str(), RENAME_EXCHANGE) == 0) return true;
  if (errno != EINVAL && errno != ENOSYS) return false;
  // A file system that cannot exchange: through a third name.
  const fs::path aside = fresh.string() + ".old";
  if (::rename(old.c_str(), aside.c_str()) != 0) return false;
  if (::rename(fresh.c_str(), old.c_str()) == 0) return ::rename(aside.c_str(), fresh.c_str()) == 0;
  ::rename(aside.c_str(), old.c_str());
  return false;
}

// The names that render_plots() and write_dashboard() give their files.
bool is_plot_of_ours(const std::string& name) {
  constexpr std::array<const char*, 6> kNames = {
      "compression_opportunities.png", "cross_layer.png",    "growth.png",
      "layer_similarity.png",          "set_comparison.png", "similarity_distribution.png"};
  return std::find(kNames.begin(), kNames.end(), name) != kNames.end() ||
         name.rfind("heatmap_layer_", 0) == 0 || name.rfind("dashboard_", 0) == 0;
}

// What a user keeps in the old folder moves on into the new one.
void keep_foreign_files(const fs::path& old_folder, const fs::path& new_folder,
                        bool (*is_ours)(const std::string& name)) {
  std::error_code ignored;
  for (const auto& entry : fs::directory_iterator(old_folder, ignored)) {
    const std::string name = entry.path().filename().string();
    if (is_ours(name) || is_there(new_folder / name)) continue;
    fs::create_directory(new_folder, ignored);
    fs::rename(entry.path(), new_folder / name, ignored);
  }
}

}  // namespace

ReportFolder::ReportFolder(const std::string& folder) {
  fs::path path = fs::path(folder.empty() ? "." : folder).lexically_normal();
  if (!path.has_filename()) path = path.parent_path();
  folder_ = path.empty() ? "." : path.string();
  exists_ = is_there(folder_);
  if (exists_ && !fs::is_directory(folder_))
    throw InputError(fmt::format("{}: expected a folder, found a file", folder_));
  if (!exists_ && path.has_parent_path()) make_directories(path.parent_path().string());
  // Inside a folder that exists, so that both are on one file system even where it is a mount point.
  staging_ =
      exists_ ? fmt::format("{}/.kvanalyze.{}", folder_, ::getpid())
              : (path.parent_path() / fmt::format(".{}.kvanalyze.{}", path.filename().string(), ::getpid()))
                    .string();
  std::error_code error;
  fs::create_directory(staging_, error);
  if (error) throw InputError(fmt::format("{}: cannot write in this folder: {}", folder_, error.message()));
}

ReportFolder::~ReportFolder() {
  std::error_code ignored;
  fs::remove_all(staging_, ignored);
}

void ReportFolder::exchange_all(const std::vector<std::string>& names) {
  for (std::size_t done = 0; done < names.size(); ++done) {
    if (exchange(fs::path(staging_) / names[done], fs::path(folder_) / names[done])) continue;
    const int error = errno;
    while (done-- > 0) exchange(fs::path(staging_) / names[done], fs::path(folder_) / names[done]);
    throw InputError(fmt::format("{}: cannot write in this folder: {}", folder_, std::strerror(error)));
  }
}

void ReportFolder::publish() {
  const HoldExit hold;
  if (!exists_) {
    if (::rename(staging_.c_str(), folder_.c_str()) != 0)
      throw InputError(fmt::format("{}: cannot make this folder: {}", folder_, std::strerror(errno)));
    return;
  }
  std::vector<std::string> names;
  for (const auto& entry : fs::directory_iterator(staging_))
    names.push_back(entry.path().filename().string());
  const bool report = is_there(fs::path(staging_) / "report.json");
  for (const char* name : {"plots", "images"})
    if ((report || name == std::string("plots")) && !is_there(fs::path(staging_) / name) &&
        is_there(fs::path(folder_) / name))
      names.emplace_back(name);
  // report.json last: where it is new, all of it is.
  std::sort(names.begin(), names.end());
  std::stable_partition(names.begin(), names.end(),
                        [](const std::string& name) { return name != "report.json"; });
  exchange_all(names);
  keep_foreign_files(fs::path(staging_) / "plots", fs::path(folder_) / "plots", is_plot_of_ours);
  keep_foreign_files(fs::path(staging_) / "images", fs::path(folder_) / "images", is_attention_file);
}

}  // namespace kva
