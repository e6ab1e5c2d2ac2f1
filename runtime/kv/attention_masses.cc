#include "runtime/kv/attention_masses.h"

#include <algorithm>

namespace kva {

AttentionMasses::AttentionMasses(const CountingAllocator<float>& masses,
                                 const CountingAllocator<AttentionMap>& maps)
    : masses_{ByTable(masses), ByTable(masses), ByTable(masses)}, maps_(maps) {}

void AttentionMasses::start_maps(std::size_t tables) {
  maps_.reserve(tables);
  maps_.resize(tables, AttentionMap(maps_.get_allocator()));
}

void AttentionMasses::extend(const Observations& asked, std::size_t table, std::size_t tables, int64_t end) {
  const std::array<bool, kMassCount> wanted{asked.attention_mass, asked.late_mass, asked.near_mass};
  const auto size = static_cast<std::size_t>(end);
  for (std::size_t i = 0; i < kMassCount; ++i) {
    if (!wanted[i]) continue;
    ByTable& tables_of = masses_[i];
    if (tables_of.empty()) tables_of.resize(tables, CountedVector<float>(tables_of.get_allocator()));
    CountedVector<float>& mass = tables_of[table];
    // Doubling, as vectors do by themselves, would show in the ledger.
    if (mass.capacity() < size) mass.reserve(std::max(size, mass.size() + mass.size() / 8 + 64));
    mass.resize(size, 0.0f);
  }
  if (mapped()) maps_[table].extend(end);
}

void AttentionMasses::cut(int64_t end) {
  for (ByTable& tables : masses_)
    for (CountedVector<float>& mass : tables)
      mass.resize(std::min(mass.size(), static_cast<std::size_t>(end)));
}

void AttentionMasses::reset(Mass mass) {
  for (CountedVector<float>& of : masses_[static_cast<std::size_t>(mass)])
    std::fill(of.begin(), of.end(), 0.0f);
}

std::span<const float> AttentionMasses::of(Mass mass, std::size_t table) const {
  const ByTable& tables = masses_[static_cast<std::size_t>(mass)];
  if (tables.empty()) return {};
  return {tables[table].data(), tables[table].size()};
}

float* AttentionMasses::data(Mass mass, std::size_t table) {
  ByTable& tables = masses_[static_cast<std::size_t>(mass)];
  return tables.empty() || tables[table].empty() ? nullptr : tables[table].data();
}

MassTargets AttentionMasses::targets(std::size_t table, const BatchSpan& step) {
  MassTargets result{.all = data(Mass::kAll, table), .map = mapped() ? &maps_[table] : nullptr};
  if (step.start + step.tokens > late_start) result.late = data(Mass::kLate, table);
  if (near_tokens > 0) result.near = data(Mass::kNear, table);
  return result;
}

}  // namespace kva
