#include "runtime/io/new_folder.h"

#include <fmt/format.h>
#include <unistd.h>

#include <filesystem>
#include <system_error>

#include "runtime/error.h"
#include "runtime/io/file.h"

namespace kva {
namespace {

namespace fs = std::filesystem;

constexpr const char* kManifest = "manifest.json";

}  // namespace

NewFolder::NewFolder(const std::string& folder, std::string kind, IsOurs is_ours)
    : kind_(std::move(kind)), is_ours_(is_ours) {
  if (folder.empty()) throw InputError(fmt::format("{} folder: expected a name, found an empty one", kind_));
  fs::path path = fs::absolute(folder).lexically_normal();
  if (!path.has_filename()) path = path.parent_path();
  folder_ = path.string();
  check_replaceable();
  make_directories(path.parent_path().string());
  const std::string temporary = folder_ + fmt::format(".tmp.{}", ::getpid());
  std::error_code error;
  if (!fs::create_directory(temporary, error))
    throw InputError(fmt::format("{}: cannot make this folder: {}", temporary,
                                 error ? error.message() : "it is there already"));
  temporary_ = temporary;
}

NewFolder::~NewFolder() {
  std::error_code ignored;
  if (!temporary_.empty()) fs::remove_all(temporary_, ignored);
}

void NewFolder::check_replaceable() const {
  std::error_code error;
  const fs::file_status status = fs::status(folder_, error);
  if (!fs::exists(status)) return;
  if (!fs::is_directory(status))
    throw InputError(fmt::format("{}: expected a folder to write the {} to, found a file", folder_, kind_));
  bool empty = true, manifest = false;
  for (const auto& entry : fs::directory_iterator(folder_, error)) {
    const std::string name = entry.path().filename().string();
    if (name != kManifest && !is_ours_(name))
      throw InputError(
          fmt::format("{}: expected a new folder or an earlier {}, found one that holds {}; name another "
                      "folder",
                      folder_, kind_, name));
    empty = false;
    manifest |= name == kManifest;
  }
  if (error) throw InputError(fmt::format("{}: cannot read this folder: {}", folder_, error.message()));
  if (!empty && !manifest)
    throw InputError(
        fmt::format("{}: expected a new folder or an earlier {}, found files without a manifest; name "
                    "another folder",
                    folder_, kind_));
}

std::string NewFolder::path(const std::string& name) const {
  return name.empty() ? temporary_ : (fs::path(temporary_) / name).string();
}

int64_t NewFolder::free_bytes() const {
  std::error_code error;
  const fs::space_info space = fs::space(fs::path(folder_).parent_path(), error);
  return error ? INT64_MAX : static_cast<int64_t>(space.available);
}

void NewFolder::install() {
  check_replaceable();
  const std::string old = folder_ + fmt::format(".old.{}", ::getpid());
  std::error_code error;
  const bool replaces = fs::exists(folder_, error);
  if (replaces) fs::rename(folder_, old, error);
  if (!error) fs::rename(temporary_, folder_, error);
  if (error) {
    std::error_code ignored;
    if (replaces && !fs::exists(folder_, ignored)) fs::rename(old, folder_, ignored);
    throw InputError(fmt::format("{}: cannot write: {}", folder_, error.message()));
  }
  temporary_.clear();
  if (replaces) fs::remove_all(old, error);
}

}  // namespace kva
