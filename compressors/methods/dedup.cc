// dedup: pages of the same content, or nearly the same, are stored once.
//
// Exact: a page's dense numbers are hashed (XXH3, 128 bits) before anything lossy happens to them. Where an
// earlier page had the same hash, the two share a side if their encodings are equal too; so sharing changes
// nothing. Near: a page refers to the kept page it is most similar to, if that is over the threshold.

#include <xxhash.h>

#include <algorithm>
#include <cmath>
#include <map>
#include <tuple>

#include "compressors/method.h"
#include "compressors/step.h"
#include "kernels/dense_rows.h"

namespace kva {
namespace {

enum class Scope { kHead, kLayer, kCache };

// Pages that may share a side lie in one group.
struct Group {
  int layer = 0;
  int kv_head = 0;
  Side side = Side::kKey;
  friend bool operator<(const Group& a, const Group& b) {
    return std::tie(a.layer, a.kv_head, a.side) < std::tie(b.layer, b.kv_head, b.side);
  }
};

Group group_of(const Cell& cell, Scope scope) {
  return {scope == Scope::kCache ? 0 : cell.layer, scope == Scope::kHead ? cell.kv_head : 0, cell.side};
}

bool can_share(const DraftStream& stream) { return stream.unformatted() && !stream.cells.empty(); }

class ExactDedupStep : public Step {
 public:
  explicit ExactDedupStep(Scope scope) : scope_(scope) {}

  void run(const StepContext&, Draft& draft) override {
    hashes_.clear();
    std::map<Key, std::size_t> of_draft;
    for (std::size_t i = 0; i < draft.streams.size(); ++i) {
      DraftStream& stream = draft.streams[i];
      if (!can_share(stream)) continue;
      const Cell cell = stream.cells.front();
      const Key key = key_of(stream, cell);
      hashes_.emplace_back(key, cell);
      const auto [earlier, is_new] = of_draft.emplace(key, i);
      DraftStream& first = draft.streams[earlier->second];
      if (!is_new && first.rows == stream.rows) {
        first.cells.insert(first.cells.end(), stream.cells.begin(), stream.cells.end());
        stream.cells.clear();
        continue;
      }
      if (const auto found = pages_.find(key); found != pages_.end()) stream.equals = found->second;
    }
  }

  void applied(const StepContext&, const Draft& draft) override {
    for (const auto& [key, cell] : hashes_) {
      std::vector<PageAddress>& pages = pages_[key];
      if (pages.size() < kMostCandidates) pages.push_back(draft.address(cell));
    }
  }

  void moved(const StepContext& context, SequenceId sequence) override { forget(context, sequence); }
  void forget(const StepContext&, SequenceId sequence) override {
    for (auto entry = pages_.begin(); entry != pages_.end();) {
      std::erase_if(entry->second, [&](const PageAddress& at) { return at.sequence == sequence; });
      entry = entry->second.empty() ? pages_.erase(entry) : std::next(entry);
    }
  }

 private:
  // More pages of one content than this share sides already.
  static constexpr std::size_t kMostCandidates = 16;

  struct Key {
    Group group;
    uint64_t low = 0;
    uint64_t high = 0;
    friend bool operator<(const Key& a, const Key& b) {
      return std::tie(a.group, a.low, a.high) < std::tie(b.group, b.low, b.high);
    }
  };

  Key key_of(const DraftStream& stream, const Cell& cell) const {
    const XXH128_hash_t hash = XXH3_128bits(stream.rows.data(), stream.rows.size() * sizeof(float));
    return {group_of(cell, scope_), hash.low64, hash.high64};
  }

  Scope scope_;
  std::map<Key, std::vector<PageAddress>> pages_;
  std::vector<std::pair<Key, Cell>> hashes_;  // of the draft under way
};

class NearDedupStep : public Step {
 public:
  NearDedupStep(Scope scope, bool relative_l2, double threshold)
      : scope_(scope), relative_l2_(relative_l2), threshold_(threshold) {}

  void run(const StepContext& context, Draft& draft) override {
    std::map<Group, std::vector<std::size_t>> streams;
    for (std::size_t i = 0; i < draft.streams.size(); ++i)
      if (can_share(draft.streams[i])) streams[group_of(draft.streams[i].cells.front(), scope_)].push_back(i);
    std::vector<std::pair<Group, std::vector<std::size_t>>> work(streams.begin(), streams.end());
    for (const auto& entry : work) kept_[entry.first];
    context.pool.parallel_for(static_cast<int64_t>(work.size()), [&](int64_t index, int) {
      const auto& [group, members] = work[static_cast<std::size_t>(index)];
      match(context.cache, kept_.at(group), members, draft);
    });
  }

  void applied(const StepContext&, const Draft& draft) override {
    for (const DraftStream& stream : draft.streams)
      if (!stream.cells.empty() && stream.alias == kNoSide && !stream.shared)
        kept_[group_of(stream.cells.front(), scope_)].push_back(draft.address(stream.cells.front()));
  }

  void moved(const StepContext& context, SequenceId sequence) override { forget(context, sequence); }
  void forget(const StepContext&, SequenceId sequence) override {
    for (auto& [group, pages] : kept_)
      std::erase_if(pages, [&](const PageAddress& at) { return at.sequence == sequence; });
  }

 private:
  // Over the threshold: cosine, or 1 - ‖x - y‖ / max(‖x‖, ‖y‖).
  double similarity(const std::vector<float>& x, const std::vector<float>& y) const {
    const auto count = static_cast<int64_t>(x.size());
    const auto dot = [&](const std::vector<float>& a, const std::vector<float>& b) {
      float result = 0.0f;
      dense_scores(MatView<const float>(a.data(), 1, count), b.data(), DType::kF32,
                   MatView<float>(&result, 1, 1));
      return static_cast<double>(result);
    };
    const double xx = dot(x, x);
    const double yy = dot(y, y);
    const double xy = dot(x, y);
    if (xx <= 0.0 || yy <= 0.0) return xx == yy ? 1.0 : 0.0;
    if (!relative_l2_) return xy / std::sqrt(xx * yy);
    return 1.0 - std::sqrt(std::max(0.0, xx + yy - 2.0 * xy) / std::max(xx, yy));
  }

  void match(const KvCache& cache, const std::vector<PageAddress>& kept,
             const std::vector<std::size_t>& members, Draft& draft) const {
    std::vector<float> rows;
    std::vector<double> best(members.size(), threshold_);
    for (const PageAddress& at : kept) {
      const PageFacts facts = cache.page(at);
      if (facts.open) continue;
      rows.resize(static_cast<std::size_t>(facts.tokens * cache.options().head_dim));
      cache.read_page(at.sequence, at.layer, at.kv_head, at.page, at.side,
                      MatView<float>(rows.data(), facts.tokens, cache.options().head_dim));
      for (std::size_t m = 0; m < members.size(); ++m) {
        DraftStream& stream = draft.streams[members[m]];
        if (stream.tokens != facts.tokens) continue;
        const double found = similarity(stream.rows, rows);
        if (found <= best[m]) continue;
        best[m] = found;
        stream.alias = facts.side;
      }
    }
    for (std::size_t m = 0; m < members.size(); ++m) share_within(members, m, best[m], draft);
  }

  // Another page of the same draft can be nearer than every kept one.
  void share_within(const std::vector<std::size_t>& members, std::size_t m, double best, Draft& draft) const {
    DraftStream& stream = draft.streams[members[m]];
    DraftStream* nearest = nullptr;
    for (std::size_t earlier = 0; earlier < m; ++earlier) {
      DraftStream& other = draft.streams[members[earlier]];
      if (other.cells.empty() || other.alias != kNoSide || other.tokens != stream.tokens) continue;
      const double found = similarity(stream.rows, other.rows);
      if (found <= best) continue;
      best = found;
      nearest = &other;
    }
    if (!nearest) return;
    stream.alias = kNoSide;
    nearest->cells.insert(nearest->cells.end(), stream.cells.begin(), stream.cells.end());
    stream.cells.clear();
  }

  Scope scope_;
  bool relative_l2_;
  double threshold_;
  std::map<Group, std::vector<PageAddress>> kept_;
};

// Prompts share their beginnings before anything is computed, where sequences are made: nothing is left to do
// with their pages.
class PrefixDedupStep : public Step {
 public:
  void run(const StepContext&, Draft&) override {}
};

std::string check_dedup(const Arguments& arguments, const StepPlace&) {
  int ways = 0;
  for (const char* way : {"mode", "cos", "l2"}) ways += arguments.given(way) ? 1 : 0;
  return ways <= 1 ? "" : "expected one of dedup(exact), dedup(cos=0.98) and dedup(l2=0.9), found several";
}

std::unique_ptr<Step> make_dedup(const Arguments& arguments) {
  if (arguments.word("mode") == "prefix") return std::make_unique<PrefixDedupStep>();
  const std::string_view word = arguments.word("scope");
  const Scope scope = word == "head" ? Scope::kHead : word == "layer" ? Scope::kLayer : Scope::kCache;
  if (arguments.has("cos")) return std::make_unique<NearDedupStep>(scope, false, arguments.number("cos"));
  if (arguments.has("l2")) return std::make_unique<NearDedupStep>(scope, true, arguments.number("l2"));
  return std::make_unique<ExactDedupStep>(scope);
}

}  // namespace

MethodInfo dedup_method() {
  using enum ParameterKind;
  return {
      .name = "dedup",
      .meaning = "Pages of the same content, or nearly the same, are stored once",
      .kind = MethodKind::kStructure,
      .papers = {{"Efficient Memory Management for Large Language Model Serving with PagedAttention",
                  "2309.06180"}},
      .parameters = {{.name = "mode",
                      .kind = kWord,
                      .fallback = "exact",
                      .words = {{"exact", {}, "pages whose dense bytes are equal"},
                                {"prefix", {}, "pages of prompts that begin alike, never computed twice"}},
                      .help = "how equal pages are found; or a metric with its threshold instead"},
                     {.name = "cos",
                      .aliases = {"cosine"},
                      .kind = kNumber,
                      .lower = -1,
                      .upper = 1,
                      .help = "pages whose cosine is over this share a side"},
                     {.name = "l2",
                      .kind = kNumber,
                      .lower = 0,
                      .upper = 1,
                      .help = "pages with 1 - |x-y| / max(|x|,|y|) over this share a side"},
                     {.name = "scope",
                      .kind = kWord,
                      .fallback = "layer",
                      .words = {{"head", {}, "pages of one KV head, of all sequences"},
                                {"layer", {}, "pages of one layer, of all heads and sequences"},
                                {"cache", {}, "all pages of the same side"}},
                      .help = "which pages may share; K and V never mix"}},
      .check = check_dedup,
      .make = make_dedup,
  };
}

}  // namespace kva
