// lowrank: coefficients on a basis that spans the sequence, x ≈ c B with c = x Bᵀ; B holds the leading right
// singular vectors of the tokens it was fitted on. layers=G is xKV (arXiv 2503.18893): one SVD of G layers'
// heads side by side, X = [X₁ … X_G] ≈ C [B₁ … B_G], whose coefficients C they share.
//
// A basis is fitted on the first fit_tokens of a sequence; until it has so many, they stay dense. With
// refresh, a page whose relative residual ‖x - x Bᵀ B‖ / ‖x‖ is over that waits until as many tokens have
// come since its beginning, and a new basis is fitted on those alone: never on what the old basis has already
// flattened, and never on so few that the next page asks again. Pages that a basis was fitted on do not ask.
// Older pages keep the basis that they were written with.

#include <fmt/format.h>

#include <algorithm>
#include <cmath>
#include <map>
#include <optional>

#include "compressors/based_streams.h"
#include "compressors/basis_fit.h"
#include "compressors/method.h"
#include "compressors/step.h"
#include "compressors/subspace.h"
#include "kernels/random.h"
#include "runtime/clock.h"
#include "runtime/error.h"

namespace kva {
namespace {

constexpr int64_t kWidestGroup = 8192;          // the squares of so many numbers are 0.5 GiB
constexpr int64_t kMostFitNumbers = 1ll << 26;  // of a group: 0.5 GiB in f64
constexpr int64_t kManyCoordinates = 4096;

class LowRankStep : public Step {
 public:
  explicit LowRankStep(const Arguments& arguments)
      : arguments_(arguments),
        refresh_(arguments.has("refresh") ? arguments.number("refresh") : 0.0),
        randomized_(arguments.word("method") == "randomized") {}

  void begin(const StepContext& context) override;
  int64_t tokens_to_begin() const override { return fit_pages_ * page_tokens_; }
  bool ready(const StepContext& context, SequenceId sequence, int64_t page) override;
  // Where pages are on a device, bases are fitted and coefficients made there.
  bool reads_numbers() const override { return !on_device_; }
  void run(const StepContext& context, Draft& draft) override;
  void outline(const StepContext& context, Draft& draft) override;
  void forked(const StepContext&, SequenceId sequence, SequenceId copy, int64_t pages) override;
  void forget(const StepContext&, SequenceId sequence) override;
  std::vector<std::pair<std::string, double>> counters() const override;
  std::vector<std::string> remarks() const override;

 private:
  // Pages [first, end) to fit a group's basis on.
  struct Fit {
    std::size_t group;
    int64_t first;
    int64_t end;
  };

  void set_ranks();
  void set_fit_pages(const KvCacheOptions& options);
  std::vector<Fit> needed_fits(const StepContext& context, const Draft& draft) const;
  // Whether the page's residual in the current basis of a group is over what refreshes it, of those groups.
  std::vector<char> over_residual(const StepContext& context, SequenceId sequence, int64_t page,
                                  std::span<const std::size_t> groups, const Draft* draft = nullptr) const;
  void fit_bases(const StepContext& context, SequenceId sequence, int64_t page, std::span<const Fit> fits);
  Basis known_or_new(const StepContext& context, std::size_t group, const Subspace& subspace);

  Arguments arguments_;
  double refresh_;
  bool randomized_;
  bool on_device_ = false;
  int64_t page_tokens_ = 1;
  int64_t fit_pages_ = 1;
  std::vector<BasisGroup> groups_;
  std::vector<int64_t> ranks_;  // of each group; with energy, the highest so far
  std::map<SequenceId, std::vector<BasisHistory>> histories_;
  std::map<SequenceId, int64_t> waiting_;  // the page that waits for enough tokens to renew a basis
  // Bases that may be alive, by group: sequences that begin alike get the same basis.
  std::vector<std::vector<std::weak_ptr<const LowRankBasis>>> known_;
  int64_t fits_ = 0;
  int64_t refreshes_ = 0;
  double fit_seconds_ = 0.0;
};

void LowRankStep::begin(const StepContext& context) {
  const KvCacheOptions& options = context.cache.options();
  const auto layers = static_cast<int>(std::min<int64_t>(arguments_.integer("layers"), options.layers));
  page_tokens_ = options.page_tokens;
  on_device_ = options.backend->device() != nullptr;
  groups_ = basis_groups(context.cells, layers, options.head_dim);
  known_.resize(groups_.size());
  ranks_.assign(groups_.size(), 0);
  for (const BasisGroup& group : groups_)
    if (group.width > kWidestGroup)
      throw InputError(fmt::format(
          "lowrank(layers={}): expected groups at most {} numbers wide, found {}; use fewer layers", layers,
          kWidestGroup, group.width));
  if (!arguments_.has("energy")) set_ranks();
  set_fit_pages(options);
}

void LowRankStep::set_ranks() {
  int64_t widest = 0;
  for (const BasisGroup& group : groups_) widest = std::max(widest, group.width);
  const double asked = arguments_.number("rank");
  const bool count = arguments_.is_count("rank");
  if (count && asked > static_cast<double>(widest))
    throw InputError(
        fmt::format("lowrank(rank={}): expected at most {}, the numbers that a basis spans, or a share such "
                    "as 0.5",
                    asked, widest));
  // Where layers are left over, their smaller group keeps the same share.
  const double share = count ? asked / static_cast<double>(widest) : asked;
  for (std::size_t g = 0; g < groups_.size(); ++g)
    ranks_[g] = std::max<int64_t>(1, std::llround(share * static_cast<double>(groups_[g].width)));
}

void LowRankStep::set_fit_pages(const KvCacheOptions& options) {
  const int64_t rank = *std::max_element(ranks_.begin(), ranks_.end());
  int64_t tokens = arguments_.integer("fit_tokens");
  if (!arguments_.given("fit_tokens")) {
    tokens = std::max(tokens, 2 * rank);
  } else if (tokens < rank) {
    throw InputError(fmt::format(
        "lowrank(fit_tokens={}): expected at least {}, the rank: fewer tokens span fewer dimensions", tokens,
        rank));
  }
  fit_pages_ = (tokens + options.page_tokens - 1) / options.page_tokens;
  for (const BasisGroup& group : groups_)
    if (tokens_to_begin() > kMostFitNumbers / group.width)
      throw InputError(fmt::format(
          "lowrank(fit_tokens={}): expected at most {} tokens for rows of {} numbers; use fewer tokens or "
          "layers",
          tokens, kMostFitNumbers / group.width, group.width));
}

bool LowRankStep::ready(const StepContext& context, SequenceId sequence, int64_t page) {
  const auto known = histories_.find(sequence);
  const bool enough = page + fit_pages_ <= context.cache.sealed_pages(sequence);
  if (refresh_ <= 0.0 || enough || known == histories_.end()) return true;
  const auto waiting = waiting_.find(sequence);
  if (waiting != waiting_.end() && waiting->second == page) return false;
  std::vector<std::size_t> asked;
  for (std::size_t g = 0; g < groups_.size(); ++g)
    if (const BasisHistory& history = known->second[g]; history.current() && !history.fitted_on(page))
      asked.push_back(g);
  const std::vector<char> over = over_residual(context, sequence, page, asked);
  if (std::find(over.begin(), over.end(), 1) == over.end()) return true;
  waiting_[sequence] = page;
  return false;
}

std::vector<char> LowRankStep::over_residual(const StepContext& context, SequenceId sequence, int64_t page,
                                             std::span<const std::size_t> groups, const Draft* draft) const {
  std::vector<GroupBasis> on_bases;
  for (const std::size_t g : groups)
    on_bases.push_back({&groups_[g], histories_.at(sequence)[g].current().get()});
  std::vector<char> over;
  for (const double residual : page_residuals(context, sequence, page, on_bases, draft))
    over.push_back(residual > refresh_ ? 1 : 0);
  return over;
}

std::vector<LowRankStep::Fit> LowRankStep::needed_fits(const StepContext& context, const Draft& draft) const {
  const std::vector<BasisHistory>& histories = histories_.at(draft.sequence);
  const int64_t sealed = context.cache.sealed_pages(draft.sequence);
  const bool ahead = draft.page + fit_pages_ <= sealed;
  std::vector<char> needed(groups_.size(), 0);
  std::vector<std::size_t> asked;
  for (std::size_t g = 0; g < groups_.size(); ++g) {
    if (!takes_basis(draft, groups_[g])) continue;
    if (!histories[g].current())
      needed[g] = 1;
    else if (refresh_ > 0.0 && ahead && !histories[g].fitted_on(draft.page))
      asked.push_back(g);
  }
  const std::vector<char> over = over_residual(context, draft.sequence, draft.page, asked, &draft);
  for (std::size_t i = 0; i < asked.size(); ++i) needed[asked[i]] = over[i];
  std::vector<Fit> fits;
  // A cell that other steps kept from us so far begins with the pages behind it where none are ahead.
  const int64_t first = ahead ? draft.page : std::max<int64_t>(0, sealed - fit_pages_);
  for (std::size_t g = 0; g < groups_.size(); ++g)
    if (needed[g]) fits.push_back({g, first, first + fit_pages_});
  return fits;
}

void LowRankStep::fit_bases(const StepContext& context, SequenceId sequence, int64_t page,
                            std::span<const Fit> fits) {
  if (fits.empty()) return;
  const auto start = Clock::now();
  std::vector<GroupFit> asked;
  for (const Fit& of : fits)
    asked.push_back({.group = &groups_[of.group],
                     .first = of.first,
                     .end = of.end,
                     .size = arguments_.has("energy") ? SubspaceSize{.energy = arguments_.number("energy")}
                                                      : SubspaceSize{.rank = ranks_[of.group]},
                     .seed = SplitMix64(context.seed + of.group).next()});
  const std::vector<Subspace> found = fit_groups(context, sequence, asked, randomized_);
  std::vector<BasisHistory>& histories = histories_.at(sequence);
  for (std::size_t i = 0; i < fits.size(); ++i) {
    const Fit& of = fits[i];
    if (found[i].rank == 0) continue;
    BasisHistory& history = histories[of.group];
    ++fits_;
    if (history.current()) ++refreshes_;
    ranks_[of.group] = std::max(ranks_[of.group], found[i].rank);
    history.renew(known_or_new(context, of.group, found[i]), page, of.end);
  }
  fit_seconds_ += seconds_since(start);
}

Basis LowRankStep::known_or_new(const StepContext& context, std::size_t group, const Subspace& subspace) {
  auto basis = std::make_shared<const LowRankBasis>(
      context.cache.side_memory(),
      MatView<const float>(subspace.basis.data(), subspace.rank, groups_[group].width),
      static_cast<int64_t>(groups_[group].cells.size()));
  auto& known = known_[group];
  std::erase_if(known, [](const auto& entry) { return entry.expired(); });
  for (const auto& entry : known)
    if (Basis live = entry.lock(); live && live->same_numbers(*basis)) return live;
  known.push_back(basis);
  return basis;
}

// On bases of zeros: with energy, whose ranks follow from the numbers, of one that little can be built on.
void LowRankStep::outline(const StepContext& context, Draft& draft) {
  std::map<std::size_t, Basis> of_cells;  // by their number, from which all else follows
  for (std::size_t g = 0; g < groups_.size(); ++g) {
    const BasisGroup& group = groups_[g];
    if (!takes_basis(draft, group)) continue;
    Basis& basis = of_cells[group.cells.size()];
    if (!basis) {
      const auto width = static_cast<std::size_t>(group.width);
      const auto rank =
          ranks_[g] > 0 ? static_cast<std::size_t>(ranks_[g]) : std::max<std::size_t>(1, width - 1);
      const std::vector<float> zeros(rank * width);
      basis = std::make_shared<const LowRankBasis>(
          context.cache.side_memory(),
          MatView<const float>(zeros.data(), static_cast<int64_t>(rank), group.width),
          static_cast<int64_t>(group.cells.size()));
    }
    put_on_basis(draft, group, basis);
  }
}

void LowRankStep::run(const StepContext& context, Draft& draft) {
  histories_[draft.sequence].resize(groups_.size());
  fit_bases(context, draft.sequence, draft.page, needed_fits(context, draft));
  const std::vector<BasisHistory>& histories = histories_.at(draft.sequence);
  std::vector<std::pair<std::size_t, std::size_t>> sharing;  // group and stream of its coefficients
  for (std::size_t g = 0; g < groups_.size(); ++g) {
    const Basis& basis = histories[g].current();
    if (!basis || !takes_basis(draft, groups_[g])) continue;
    put_on_basis(draft, groups_[g], basis);
    if (groups_[g].cells.size() > 1 && !draft.streams.back().unread)
      sharing.emplace_back(g, draft.streams.size() - 1);
  }
  context.pool.parallel_for(static_cast<int64_t>(sharing.size()), [&](int64_t index, int) {
    const auto& [g, stream] = sharing[static_cast<std::size_t>(index)];
    const BasisGroup& group = groups_[g];
    DraftStream& shared = draft.streams[stream];
    const LowRankBasis& basis = *histories[g].current();
    const std::vector<float> rows = joined_rows(draft, group);
    shared.rows.resize(static_cast<std::size_t>(shared.tokens * shared.width));
    at_page(group.cells.front(), draft.start, [&] {
      basis.project(MatView<const float>(rows.data(), shared.tokens, group.width),
                    MatView<float>(shared.rows.data(), shared.tokens, shared.width));
    });
  });
}

void LowRankStep::forked(const StepContext&, SequenceId sequence, SequenceId copy, int64_t pages) {
  const auto known = histories_.find(sequence);
  if (known == histories_.end() || pages == 0) return;
  std::vector<BasisHistory> histories;
  for (const BasisHistory& history : known->second) histories.push_back(history.before(pages));
  histories_[copy] = std::move(histories);
}

void LowRankStep::forget(const StepContext&, SequenceId sequence) {
  histories_.erase(sequence);
  waiting_.erase(sequence);
}

std::vector<std::pair<std::string, double>> LowRankStep::counters() const {
  int64_t live_bytes = 0;
  for (const auto& group : known_)
    for (const auto& entry : group)
      if (const Basis basis = entry.lock()) live_bytes += basis->bytes();
  return {{"lowrank.fits", static_cast<double>(fits_)},
          {"lowrank.refreshes", static_cast<double>(refreshes_)},
          {"lowrank.fit_seconds", fit_seconds_},
          {"lowrank.basis_bytes", static_cast<double>(live_bytes)}};
}

std::vector<std::string> LowRankStep::remarks() const {
  std::vector<std::string> remarks;
  std::size_t worst = groups_.size();  // with the longest sequence before its basis pays
  double most = 0.0;
  for (std::size_t g = 0; g < groups_.size(); ++g) {
    const auto rank = static_cast<double>(ranks_[g]), width = static_cast<double>(groups_[g].width);
    const double tokens = rank < width ? rank * width / (width - rank) : INFINITY;
    if (rank > 0 && tokens > most) {
      most = tokens;
      worst = g;
    }
  }
  if (worst == groups_.size()) return remarks;
  const std::string of =
      fmt::format("lowrank: a basis of rank {} for rows of {} numbers", ranks_[worst], groups_[worst].width);
  if (ranks_[worst] >= groups_[worst].width)
    remarks.push_back(of + " saves nothing");
  else if (most > static_cast<double>(tokens_to_begin()))
    remarks.push_back(fmt::format("{} pays from {} tokens of a sequence on, coefficients of 16 bits supposed",
                                  of, static_cast<int64_t>(std::ceil(most))));
  if (ranks_[worst] > kManyCoordinates)
    remarks.push_back(fmt::format("{}: attention turns each query into as many coordinates, more than {}", of,
                                  kManyCoordinates));
  return remarks;
}

std::string check_lowrank(const Arguments& arguments, const StepPlace&) {
  if (arguments.given("rank") && arguments.given("energy"))
    return "expected rank or energy, found both: energy chooses the rank";
  return "";
}

std::vector<ParameterInfo> lowrank_parameters() {
  using enum ParameterKind;
  return {
      {.name = "rank",
       .kind = kCountOrShare,
       .fallback = "0.5",
       .lower = 0,
       .upper = 1 << 20,
       .above_lower = true,
       .unit = "dimensions",
       .help = "coefficients kept of a token: a number or a share of those it has"},
      {.name = "energy",
       .kind = kNumber,
       .lower = 0,
       .upper = 1,
       .above_lower = true,
       .unit = "share",
       .help = "instead of rank: the share of the squared singular values that is kept"},
      {.name = "layers",
       .kind = kInteger,
       .fallback = "1",
       .lower = 1,
       .upper = 1 << 20,
       .unit = "layers",
       .help = "neighbouring layers that share a basis and its coefficients, all heads; 1: each head alone"},
      {.name = "refresh",
       .kind = kNumber,
       .lower = 0,
       .upper = 1,
       .above_lower = true,
       .unit = "share",
       .help = "a new basis once a page's relative residual is over this; by default never"},
      {.name = "fit_tokens",
       .kind = kInteger,
       .fallback = "256",
       .lower = 1,
       .upper = 1 << 20,
       .unit = "tokens",
       .help = "tokens that a basis is fitted on, dense till then; unless given, twice the rank where more"},
      {.name = "method",
       .kind = kWord,
       .fallback = "exact",
       .words = {{"exact", {}, "the singular vectors (LAPACK)"},
                 {"randomized", {}, "a randomized range finder: faster for a small rank in a wide group"}},
       .help = "how a basis is found"},
  };
}

}  // namespace

MethodInfo lowrank_method() {
  return {
      .name = "lowrank",
      .meaning = "Coefficients on a basis of the sequence, fewer than a token has numbers",
      .kind = MethodKind::kTransform,
      .papers = {{"xKV: Cross-Layer SVD for KV-Cache Compression", "2503.18893"},
                 {"Palu: KV-Cache Compression with Low-Rank Projection", "2407.21118"},
                 {"Finding structure with randomness: Probabilistic algorithms for constructing approximate "
                  "matrix decompositions",
                  "0909.4061"}},
      .parameters = lowrank_parameters(),
      .check = check_lowrank,
      .make = [](const Arguments& arguments) -> std::unique_ptr<Step> {
        return std::make_unique<LowRankStep>(arguments);
      },
  };
}

}  // namespace kva
