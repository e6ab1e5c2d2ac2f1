// The paged KV cache of one decoder: page tables by (sequence, layer, KV head) over a store of refcounted
// page sides. Paging after vLLM (arXiv 2309.06180), but with one table for each KV head, so that heads may
// differ.
//
// The decoder hands over K and Q as the projections give them (before the position encoding); the cache
// rotates, stores and attends as its key basis asks. The decoder never knows how a page is stored.
#pragma once

#include <cstdint>
#include <memory>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "kernels/dtype.h"
#include "kernels/parallel.h"
#include "kernels/rope.h"
#include "kernels/views.h"
#include "runtime/backend/backend.h"
#include "runtime/kv/attention_map.h"
#include "runtime/kv/batch.h"
#include "runtime/kv/byte_ledger.h"
#include "runtime/kv/codec.h"
#include "runtime/kv/observations.h"
#include "runtime/kv/plan.h"
#include "runtime/kv/side_memory.h"

namespace kva {

// How keys are stored: as attention uses them (after RoPE), as projected (rotated whenever read), or token j
// of a page rotated by j alone (the query is counter-rotated by the page's start). Models without RoPE store
// the same numbers under all three.
enum class KeyBasis { kRotated, kPlain, kPageRelative };

// As options, recipes, captures and reports spell it: "rotated", "plain", "page-relative".
constexpr std::string_view key_basis_name(KeyBasis basis) {
  switch (basis) {
    case KeyBasis::kRotated: return "rotated";
    case KeyBasis::kPlain: return "plain";
    case KeyBasis::kPageRelative: return "page-relative";
  }
  return "?";
}

// The basis of exactly that name; nullopt otherwise.
constexpr std::optional<KeyBasis> parse_key_basis(std::string_view name) {
  for (const KeyBasis basis : {KeyBasis::kRotated, KeyBasis::kPlain, KeyBasis::kPageRelative})
    if (name == key_basis_name(basis)) return basis;
  return std::nullopt;
}

// Which positions the encoding sees: those in the text, or a key's index among the tokens that its table
// still holds, and for a query the index of its own key (StreamingLLM, arXiv 2309.17453). The two are the
// same bit for bit while nothing was dropped. Masses and places speak of positions in the text either way.
enum class PositionMode { kOriginal, kCacheRelative };

struct KvCacheOptions {
  int layers = 0;
  int kv_heads = 0;
  int heads = 0;  // query heads; a multiple of kv_heads
  int head_dim = 0;
  int page_tokens = 16;
  std::shared_ptr<const SideCodec> k_codec;  // of pages as they fill; appendable
  std::shared_ptr<const SideCodec> v_codec;
  KeyBasis key_basis = KeyBasis::kRotated;
  PositionMode positions = PositionMode::kOriginal;  // kCacheRelative: with kPlain and RoPE only
  std::optional<Rope> rope;                          // absent for learned positions
  float scale = 0.0f;                                // of q·k; usually 1 / sqrt(head_dim)
  // Holds the pages; absent: a CPU back end of the cache's own. Where it is a device's, append() and attend()
  // take addresses there, rows without gaps, and the cache has a CPU back end for all else.
  std::shared_ptr<Backend> backend;
};

// Larger pages would make the workspace of attention grow with them.
inline constexpr int kMaxPageTokens = 1024;

struct PageFacts {
  SideId side = kNoSide;
  int64_t tokens = 0;
  int64_t start = 0;       // position of the first token
  bool open = false;       // further tokens may join it
  bool contiguous = true;  // tokens stand at start, start + 1, ...
  // Where the tokens of a page that is not contiguous stand, ascending, and what is added to their scores.
  std::vector<int32_t> positions = {};
  std::vector<float> biases = {};
  int64_t references = 0;  // of the side
  std::string codec;
};

class PageSnapshot;  // runtime/kv/page_snapshot.h

// A live side as it is stored; good until pages change.
struct StoredSide {
  std::shared_ptr<const SideCodec> codec;
  int64_t tokens = 0;
  int64_t width = 0;
  std::span<const std::byte> payload = {};  // in the pages' memory
  SideId base = kNoSide;
};

// Used by one thread at a time; append and attend spread their work over the pool. An InputError (out of
// memory) in a step leaves its sequences unusable: free them.
class KvCache {
 public:
  // Throws InputError for page_tokens outside [1, kMaxPageTokens], for positions that the keys cannot have,
  // and for what a device cannot do yet (device_attention.h). The pool outlives the cache.
  KvCache(const KvCacheOptions& options, ThreadPool& pool);
  ~KvCache();
  KvCache(const KvCache&) = delete;
  KvCache& operator=(const KvCache&) = delete;

  const KvCacheOptions& options() const;

  // A new, empty sequence. Ids of freed sequences are used again.
  SequenceId add_sequence();
  // A copy that shares every page with `sequence`; whichever appends first to a shared tail gets its own.
  SequenceId fork_sequence(SequenceId sequence);
  // The same of its first `tokens` tokens: full pages, that is, a multiple of page_tokens, none of which a
  // plan has joined with pages behind it. Attention masses that other tokens of `sequence` gave are copied
  // too.
  SequenceId fork_sequence(SequenceId sequence, int64_t tokens);
  // Drops the sequence's references; pages nobody refers to are freed.
  void free_sequence(SequenceId sequence);
  // Tokens of the sequence after the last end_step().
  int64_t tokens(SequenceId sequence) const;

  // Begins a step. On a device all that it needs there is uploaded now, so that until end_step() its launches
  // can be recorded (kernels/device_ops.h); append() begins a step that was not begun.
  void begin_step(const Batch& batch);

  // Stores this step's keys and values of one layer. k, v: [batch rows, kv_heads * head_dim], K before RoPE.
  void append(int layer, const Batch& batch, MatView<const float> k, MatView<const float> v);

  // Causal attention of this step's queries over everything stored for the layer, this step included.
  // q, out: [batch rows, heads * head_dim], Q before RoPE; query head h reads KV head h / (heads / kv_heads).
  // Bit-equal at any thread count.
  void attend(int layer, const Batch& batch, MatView<const float> q, MatView<float> out);

  // Ends the step after all layers were appended: token counts advance and full pages are sealed.
  void end_step(const Batch& batch);

  // Number of full pages that the sequence's tokens filled.
  int64_t sealed_pages(SequenceId sequence) const;

  // Pages of one table, the open one included: as many as the tokens filled while no plan rewrites it.
  int64_t pages(SequenceId sequence, int layer, int kv_head) const;
  // Where the side of a page is, and how.
  PageFacts page(const PageAddress& at) const;

  StoredSide side(SideId id) const;

  // Decodes a page: rows [its tokens, head_dim] in the stored key basis. Thread-safe beside itself.
  void read_page(SequenceId sequence, int layer, int kv_head, int64_t page, Side side,
                 MatView<float> rows) const;

  // Collects what is asked for of this table, in all sequences, beside what was asked for before.
  void observe(int layer, int kv_head, const Observations& what);
  // By position, [tokens(sequence)] after a step; tokens that plans dropped or merged keep what they got. A
  // fork starts with what `sequence` had. Only where it is observed; good until the next append.
  std::span<const float> attention_mass(SequenceId sequence, int layer, int kv_head) const;
  // The same of late queries: those at positions >= set_late_start(), none by default.
  std::span<const float> late_mass(SequenceId sequence, int layer, int kv_head) const;
  // The same of near queries q of key k: 0 <= q - k < set_near_tokens(), none by default.
  std::span<const float> near_mass(SequenceId sequence, int layer, int kv_head) const;
  // Count from now on; what the mass was before is forgotten. Forks take over both.
  void set_late_start(SequenceId sequence, int64_t position);
  void set_near_tokens(SequenceId sequence, int64_t tokens);
  // Maps the attention of all tables of the sequence from now on, for people to look at: bit-equal at any
  // thread count, counted as workspace. Forks are not mapped.
  void map_attention(SequenceId sequence);
  // Averaged over the query heads of the KV head, as masses are. Of a sequence that is mapped; good until the
  // next append.
  const AttentionMap& attention_map(SequenceId sequence, int layer, int kv_head) const;
  // Spent on observing so far, all of it within attend().
  double observe_seconds() const;

  // The sequence's full pages as they are now, none with gaps: for a thread of their own.
  std::unique_ptr<PageSnapshot> snapshot(SequenceId sequence) const;

  // Whether the live side has exactly this codec and payload, and builds on nothing.
  bool holds(SideId side, const SideCodec& codec, std::span<const std::byte> payload) const;
  // Whether a plan may name these tokens as the sources of a new side of the codec, in place of a payload:
  // where pages are on a device that can code them; projection: as NewSide's.
  bool codes_itself(const SideCodec& codec, std::span<const SideTokens> sources,
                    const RowProjection* projection = nullptr) const;

  // Makes the change, whole or (InputError: out of memory, a codec that the pages' device cannot read,
  // numbers that the codec of a side with sources refuses) not at all. Open pages are not touched. Sides that
  // nobody refers to afterwards are freed.
  void apply(const Plan& plan);

  // Payload and scales that applying the plan would add (negative: free).
  int64_t predicted_bytes(const Plan& plan) const;

  // For what codecs of this cache's pages share; counted as `side`.
  std::shared_ptr<SideMemory> side_memory() const;

  // What a page side of so many bytes of payload and scales takes with its slot, its entry and its part of
  // the page's reference; the room that slabs and tables keep free comes on top.
  static int64_t side_footprint_bytes(int64_t bytes);

  // Bytes held now and at the peak. held() + workspace - beside is what backend() has allocated for this
  // cache, and `beside` what host_backend() has where that is another.
  ByteLedger ledger() const;
  // Payload and scales of each layer's pages; a shared side is split among its refs.
  std::vector<double> bytes_by_layer() const;
  const Backend& backend() const;
  const Backend& host_backend() const;

 private:
  struct Impl;
  std::unique_ptr<Impl> impl_;
};

}  // namespace kva
