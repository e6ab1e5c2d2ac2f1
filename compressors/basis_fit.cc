#include "compressors/basis_fit.h"

#include "compressors/device_basis.h"
#include "compressors/device_subspace.h"

namespace kva {
namespace {

double residual(const BasisGroup& group, const LowRankBasis& basis, const std::vector<float>& rows,
                int64_t start) {
  const int64_t tokens = std::ssize(rows) / group.width;
  double found = 0.0;
  at_page(group.cells.front(), start,
          [&] { found = basis.relative_residual(MatView<const float>(rows.data(), tokens, group.width)); });
  return found;
}

// Those that are found on the device; what is left over, by its place among all.
template <typename Of, typename Take>
std::vector<std::size_t> left_over(const KvCache& cache, std::span<const Of> all, const Take& take) {
  std::vector<std::size_t> left;
  for (std::size_t i = 0; i < all.size(); ++i)
    if (!cache.options().backend->device() || !take(i)) left.push_back(i);
  return left;
}

}  // namespace

std::vector<Subspace> fit_groups(const StepContext& context, SequenceId sequence,
                                 std::span<const GroupFit> fits, bool randomized) {
  std::vector<Subspace> found(fits.size());
  std::vector<DeviceFit> there;
  std::vector<std::size_t> places;
  std::vector<std::size_t> here = left_over(context.cache, fits, [&](std::size_t i) {
    const GroupFit& of = fits[i];
    auto rows = rows_on_device(context.cache, sequence, *of.group, of.first, of.end - of.first);
    if (!rows) return false;
    there.push_back({std::move(*rows), of.size, of.seed});
    places.push_back(i);
    return true;
  });
  if (!there.empty()) {
    std::vector<Subspace> on_device =
        subspaces_on_device(*context.cache.options().backend, there, randomized);
    for (std::size_t i = 0; i < places.size(); ++i) {
      found[places[i]] = std::move(on_device[i]);
      // Not finite: the host says where.
      if (found[places[i]].rank == 0) here.push_back(places[i]);
    }
  }
  context.pool.parallel_for(std::ssize(here), [&](int64_t index, int) {
    const std::size_t i = here[static_cast<std::size_t>(index)];
    const GroupFit& of = fits[i];
    const auto rows = read_group(context.cache, sequence, *of.group, of.first, of.end - of.first);
    if (rows.empty()) return;
    const MatView<const float> view(rows.data(), std::ssize(rows) / of.group->width, of.group->width);
    found[i] = randomized ? randomized_subspace(view, of.size, of.seed) : exact_subspace(view, of.size);
  });
  return found;
}

std::vector<double> page_residuals(const StepContext& context, SequenceId sequence, int64_t page,
                                   std::span<const GroupBasis> groups, const Draft* draft) {
  const auto has_read = [&](const GroupBasis& of) {
    return draft && !draft->streams[of.group->among.front()].unread;
  };
  std::vector<double> found(groups.size());
  std::vector<BasedRows> there;
  std::vector<std::size_t> places;
  std::vector<std::size_t> here = left_over(context.cache, groups, [&](std::size_t i) {
    if (has_read(groups[i])) return false;
    auto rows = rows_on_device(context.cache, sequence, *groups[i].group, page, 1);
    if (!rows) return false;
    there.push_back({std::move(*rows), groups[i].basis});
    places.push_back(i);
    return true;
  });
  if (const auto on_device = residuals_on_device(*context.cache.options().backend, there)) {
    for (std::size_t i = 0; i < places.size(); ++i) found[places[i]] = (*on_device)[i];
  } else {
    here.insert(here.end(), places.begin(), places.end());
  }
  const int64_t start = page * context.cache.options().page_tokens;
  context.pool.parallel_for(std::ssize(here), [&](int64_t index, int) {
    const std::size_t i = here[static_cast<std::size_t>(index)];
    const auto& [group, basis] = groups[i];
    found[i] = residual(*group, *basis,
                        has_read(groups[i]) ? joined_rows(*draft, *group)
                                            : read_group(context.cache, sequence, *group, page, 1),
                        start);
  });
  return found;
}

}  // namespace kva
