// The attention masses of one sequence: an array by position for each table and mass that is asked for, and a
// map of each table's attention where people want to see it.
#pragma once

#include <array>
#include <cstddef>
#include <cstdint>
#include <limits>
#include <span>

#include "runtime/backend/counted_vector.h"
#include "runtime/kv/attention_map.h"
#include "runtime/kv/batch.h"
#include "runtime/kv/observations.h"

namespace kva {

enum class Mass { kAll, kLate, kNear };
inline constexpr std::size_t kMassCount = 3;

// Where a table's masses are added to, by position; nullptr where a step's queries add nothing to one.
struct MassTargets {
  float* all = nullptr;
  float* late = nullptr;
  float* near = nullptr;
  AttentionMap* map = nullptr;

  bool any() const { return all || late || near || map; }
};

class AttentionMasses {
 public:
  // What maps take is counted apart.
  AttentionMasses(const CountingAllocator<float>& masses, const CountingAllocator<AttentionMap>& maps);

  // Room for the masses of the table's tokens [0, end), as far as they are asked for; new ones are 0.
  // tables: how many the sequence has. Likewise in its map.
  void extend(const Observations& asked, std::size_t table, std::size_t tables, int64_t end);
  // Maps the attention of all tables from now on (attention_map.h).
  void start_maps(std::size_t tables);
  void stop_maps() { maps_ = CountedVector<AttentionMap>(maps_.get_allocator()); }
  bool mapped() const { return !maps_.empty(); }
  const AttentionMap& map(std::size_t table) const { return maps_[table]; }

  // Keeps those of the tokens before `end`.
  void cut(int64_t end);
  // Sets those of all tables back to 0.
  void reset(Mass mass);

  // [tokens], or empty where nothing was asked for.
  std::span<const float> of(Mass mass, std::size_t table) const;

  // What the queries of a step may add to.
  MassTargets targets(std::size_t table, const BatchSpan& step);

  // Late queries stand at late_start and after; near ones less than near_tokens after their key.
  int64_t late_start = std::numeric_limits<int64_t>::max();
  int64_t near_tokens = 0;

 private:
  using ByTable = CountedVector<CountedVector<float>>;  // empty while nobody asks

  float* data(Mass mass, std::size_t table);

  std::array<ByTable, kMassCount> masses_;
  CountedVector<AttentionMap> maps_;  // [tables], or empty
};

}  // namespace kva
