#include "reports/experiments/results_folder.h"

#include <fcntl.h>
#include <fmt/format.h>
#include <sys/file.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <cstring>
#include <filesystem>
#include <nlohmann/json.hpp>

#include "runtime/error.h"
#include "runtime/io/file.h"
#include "runtime/io/json.h"

namespace kva {
namespace {

namespace fs = std::filesystem;
using Json = nlohmann::ordered_json;

constexpr int64_t kMaxRowBytes = int64_t{256} << 20;
constexpr const char* kLock = ".run.lock";
constexpr const char* kShardPrefix = "results.shard-";
constexpr const char* kShardSuffix = ".jsonl";

[[noreturn]] void fail(const std::string& path, const char* what) {
  throw InputError(fmt::format("{}: cannot be {}: {}", path, what, std::strerror(errno)));
}

std::string shard_name(const Shard& shard) {
  return fmt::format("{}{}-of-{}{}", kShardPrefix, shard.index, shard.count, kShardSuffix);
}

void write_all(int file, std::string_view text, const std::string& path) {
  while (!text.empty()) {
    const ssize_t written = ::write(file, text.data(), text.size());
    if (written < 0 && errno == EINTR) continue;
    if (written < 0) fail(path, "written");
    text.remove_prefix(static_cast<std::size_t>(written));
  }
}

// A new entry of a folder is on disk only when the folder is.
void sync_folder(const std::string& folder) {
  const int opened = ::open(folder.c_str(), O_RDONLY | O_DIRECTORY | O_CLOEXEC);
  if (opened < 0) return;
  ::fsync(opened);
  ::close(opened);
}

}  // namespace

Json parse_row(std::string_view line, const std::string& source) {
  Json row = parse_ordered_json(line, source, {.max_bytes = kMaxRowBytes, .max_depth = 16});
  for (const char* member : {"trial", "status"}) {
    const auto text = row.is_object() ? row.find(member) : row.end();
    if (!row.is_object() || text == row.end() || !text->is_string())
      throw InputError(fmt::format("{}: {}: expected the row of a trial, found none", source, member));
  }
  return row;
}

ReadRows read_rows(const std::string& path) {
  ReadRows read;
  std::error_code ignored;
  if (!fs::exists(path, ignored) || fs::file_size(path, ignored) == 0) return read;
  const MappedFile file(path);
  const std::string_view text(reinterpret_cast<const char*>(file.bytes().data()), file.bytes().size());
  int64_t number = 0;
  for (std::size_t start = 0; start < text.size();) {
    const std::size_t end = text.find('\n', start);
    if (end == std::string_view::npos) break;
    ++number;
    const std::string_view line = text.substr(start, end - start);
    const bool last = end + 1 == text.size();
    try {
      read.rows.push_back(parse_row(line, fmt::format("{}:{}", path, number)));
    } catch (const InputError&) {
      if (!last) throw;
      break;
    }
    start = end + 1;
    read.whole_bytes = static_cast<int64_t>(start);
  }
  return read;
}

ResultsFolder::ResultsFolder(const std::string& folder, const Shard& shard) : folder_(folder) {
  make_directories(folder);
  try {
    lock(shard);
    open_results(shard.is_part() ? shard_name(shard) : kResultsFile);
    if (!shard.is_part()) join_shards();
  } catch (...) {
    for (const int held : locks_) ::close(held);
    if (file_ >= 0) ::close(file_);
    throw;
  }
}

ResultsFolder::~ResultsFolder() {
  if (file_ >= 0) ::close(file_);
  for (const int held : locks_) ::close(held);
}

void ResultsFolder::lock(const Shard& shard) {
  const auto take = [&](const std::string& name, int how) {
    const std::string path = (fs::path(folder_) / name).string();
    const int opened = ::open(path.c_str(), O_RDWR | O_CREAT | O_CLOEXEC, 0644);
    if (opened < 0) fail(path, "opened");
    locks_.push_back(opened);
    if (::flock(opened, how | LOCK_NB) == 0) return;
    if (errno != EWOULDBLOCK) fail(path, "locked");
    throw InputError(fmt::format(
        "{}: expected no other run, found one that writes here now; wait for it or name another --output-dir",
        folder_));
  };
  take(kLock, shard.is_part() ? LOCK_SH : LOCK_EX);
  if (shard.is_part()) take("." + shard_name(shard) + ".lock", LOCK_EX);
}

void ResultsFolder::open_results(const std::string& name) {
  results_ = (fs::path(folder_) / name).string();
  ReadRows read = read_rows(results_);
  file_ = ::open(results_.c_str(), O_WRONLY | O_CREAT | O_APPEND | O_CLOEXEC, 0644);
  if (file_ < 0) fail(results_, "opened");
  if (::ftruncate(file_, read.whole_bytes) != 0) fail(results_, "cut");
  sync_folder(folder_);
  for (Json& row : read.rows) rows_.insert_or_assign(row.at("trial").get<std::string>(), std::move(row));
}

void ResultsFolder::join_shards() {
  std::vector<std::string> shards;
  for (const fs::directory_entry& entry : fs::directory_iterator(folder_)) {
    const std::string name = entry.path().filename().string();
    if (name.rfind(kShardPrefix, 0) == 0 && name.ends_with(kShardSuffix))
      shards.push_back(entry.path().string());
  }
  std::sort(shards.begin(), shards.end());
  for (const std::string& path : shards)
    for (const Json& row : read_rows(path).rows)
      if (!rows_.contains(row.at("trial").get<std::string>())) append(row);
}

const Json* ResultsFolder::row(const std::string& trial) const {
  const auto found = rows_.find(trial);
  return found == rows_.end() ? nullptr : &found->second;
}

void ResultsFolder::append(const Json& row) {
  const std::string line = row.dump(-1, ' ', false, Json::error_handler_t::replace) + "\n";
  const off_t before = ::lseek(file_, 0, SEEK_END);
  try {
    write_all(file_, line, results_);
    if (::fdatasync(file_) != 0) fail(results_, "written");
  } catch (const InputError&) {
    // Half a line would be taken for what a kill left only as long as nothing follows it.
    if (before >= 0 && ::ftruncate(file_, before) != 0) fail(results_, "cut");
    throw;
  }
  rows_.insert_or_assign(row.at("trial").get<std::string>(), row);
}

}  // namespace kva
