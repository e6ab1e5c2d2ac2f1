// Captures: the full pages of a run, handed to a sink as each prompt ends. A sink keeps them in memory for
// the one-step run or streams them into a folder, from which load_capture() maps them back; the numbers are
// the same. docs/formats.md specifies the folder.
#pragma once

#include <cstddef>
#include <cstdint>
#include <functional>
#include <memory>
#include <nlohmann/json_fwd.hpp>
#include <span>
#include <string>
#include <vector>

#include "runtime/kv/kv_cache.h"
#include "runtime/kv/page_set.h"
#include "runtime/kv/page_snapshot.h"

namespace kva {

// Takes prompts one by one: begin() once, then add_prompt() for each, prompts of one set adjacent.
class PageSink {
 public:
  PageSink();
  virtual ~PageSink();
  PageSink(const PageSink&) = delete;
  PageSink& operator=(const PageSink&) = delete;

  // The pages to come are those of a cache with these options; they are kept as `dtype`.
  void begin(const KvCacheOptions& options, DType dtype);
  // Takes all full pages of the sequence; prompt.pages is their number. The sequence may be freed afterwards.
  // Throws InputError where they cannot be kept, Interrupted after Ctrl-C.
  void add_prompt(const CapturedPrompt& prompt, const KvCache& cache, SequenceId sequence);
  // The same of pages held apart; may be on a thread of its own.
  void add_prompt(const CapturedPrompt& prompt, const PageSnapshot& pages);
  // The same of pages that lie elsewhere: read() fills rows [count, kv_heads, page_tokens, head_dim] of the
  // prompt's pages [first, first + count), in the key basis of begin(); `starts` are the positions of their
  // first tokens.
  using PageReader = std::function<void(int layer, Side side, int64_t first, int64_t count, float* rows)>;
  void add_prompt(const CapturedPrompt& prompt, std::span<const int64_t> starts, const PageReader& read);

  virtual bool keeps_pages_in_memory() const = 0;
  // Bytes that are free where the pages go: memory, or the folder's disk.
  virtual int64_t free_bytes() const = 0;

 protected:
  // What was taken so far, without values.
  const PageSet& layout() const { return layout_; }
  virtual void open() = 0;
  // Some pages of a layer and side, [pages, kv_heads, page_tokens, head_dim] of the set's type.
  virtual void take(int layer, Side side, std::span<const std::byte> values) = 0;

 private:
  PageSet layout_;
};

class MemoryCapture : public PageSink {
 public:
  MemoryCapture();
  ~MemoryCapture() override;

  bool keeps_pages_in_memory() const override { return true; }
  int64_t free_bytes() const override;
  // Everything added so far; good until the next add_prompt(), also after this object is gone.
  PageSet pages() const;

 protected:
  void open() override;
  void take(int layer, Side side, std::span<const std::byte> values) override;

 private:
  struct Store;
  std::shared_ptr<Store> store_;
};

// Writes to "<folder>.tmp.<pid>" beside the folder and renames it in finish(); destroyed before that, it
// leaves nothing. An earlier capture in the folder is replaced at that moment; a folder that holds anything
// else is refused.
class CaptureWriter : public PageSink {
 public:
  // Throws InputError where the folder cannot be written or holds other files.
  explicit CaptureWriter(const std::string& folder);
  ~CaptureWriter() override;

  bool keeps_pages_in_memory() const override { return false; }
  int64_t free_bytes() const override;
  // Completes the capture. Both objects are kept in the manifest as they are: facts is what run_capture()
  // returned (the model's identity is in it), provenance that of the report. Throws InputError.
  void finish(const nlohmann::ordered_json& facts, const nlohmann::ordered_json& provenance);

 protected:
  void open() override;
  void take(int layer, Side side, std::span<const std::byte> values) override;

 private:
  struct Files;
  std::unique_ptr<Files> files_;
};

// A capture folder, mapped. Views in `pages` live as long as any copy of it.
struct Capture {
  PageSet pages;
  std::shared_ptr<const nlohmann::ordered_json> facts;
  std::shared_ptr<const nlohmann::ordered_json> provenance;
};

// Checks everything before it is believed: the manifest, each file's size, shape and checksum. Throws
// InputError for every defect, naming file and field.
Capture load_capture(const std::string& folder);

}  // namespace kva
