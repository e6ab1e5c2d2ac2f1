// Files: bounded reads, read-only maps, and writes that leave the whole file or none.
#pragma once

#include <cstddef>
#include <cstdint>
#include <span>
#include <string>
#include <string_view>

namespace kva {

// The file's bytes. Throws InputError where it is missing, no regular file, unreadable or over max_bytes.
std::string read_text_file(const std::string& path, int64_t max_bytes);
// The same of a text that is well-formed UTF-8; InputError where it is not.
std::string read_utf8_file(const std::string& path, int64_t max_bytes = int64_t{256} << 20);

// A file mapped read-only for as long as the object lives.
class MappedFile {
 public:
  explicit MappedFile(const std::string& path);
  ~MappedFile();
  MappedFile(MappedFile&& other) noexcept;
  MappedFile& operator=(MappedFile&& other) noexcept;

  std::span<const std::byte> bytes() const { return {data_, size_}; }
  const std::string& path() const { return path_; }
  // Gives back the memory that holds `part` of it; reading it again reads the file. Nothing happens to bytes
  // that are not its own.
  void forget(std::span<const std::byte> part) const;

 private:
  std::string path_;
  const std::byte* data_ = nullptr;
  std::size_t size_ = 0;
};

// Writes to a temporary name beside `path` and renames on commit(); without commit() nothing is left. Throws
// InputError where the target cannot be written or the disk is full.
class AtomicFile {
 public:
  explicit AtomicFile(std::string path);
  ~AtomicFile();
  AtomicFile(AtomicFile&& other) noexcept;
  AtomicFile& operator=(AtomicFile&&) = delete;

  void write(const void* data, std::size_t bytes);
  void write(std::string_view text) { write(text.data(), text.size()); }
  // Overwrites earlier bytes; the position stays at the end.
  void write_at(int64_t offset, const void* data, std::size_t bytes);
  int64_t size() const { return size_; }
  void commit();

 private:
  std::string path_;
  std::string temporary_;
  int fd_ = -1;
  int64_t size_ = 0;
};

// Shorthand for an AtomicFile written at once.
void write_text_file(const std::string& path, std::string_view text);

// Makes a folder and its parents. Throws InputError where it cannot.
void make_directories(const std::string& path);

}  // namespace kva
