// What a cache observes of attention where a policy asks for it.
#include <algorithm>

#include "runtime/kv/kv_cache_impl.h"

namespace kva {

void KvCache::observe(int layer, int kv_head, const Observations& what) {
  Impl& impl = *impl_;
  const std::size_t table = impl.table_index(layer, kv_head);
  if (!what.any()) return;
  impl.observed.resize(impl.table_count());
  impl.observed[table] = impl.observed[table] | what;
}

std::span<const float> KvCache::Impl::mass(SequenceId id, int layer, int kv_head, Mass which,
                                           bool Observations::*asked) {
  const std::size_t table = table_index(layer, kv_head);
  KVA_CHECK(!observed.empty() && observed[table].*asked, "a mass is there where it was asked for");
  return sequence(id).masses.of(which, table);
}

std::span<const float> KvCache::attention_mass(SequenceId sequence, int layer, int kv_head) const {
  return impl_->mass(sequence, layer, kv_head, Mass::kAll, &Observations::attention_mass);
}

std::span<const float> KvCache::late_mass(SequenceId sequence, int layer, int kv_head) const {
  return impl_->mass(sequence, layer, kv_head, Mass::kLate, &Observations::late_mass);
}

std::span<const float> KvCache::near_mass(SequenceId sequence, int layer, int kv_head) const {
  return impl_->mass(sequence, layer, kv_head, Mass::kNear, &Observations::near_mass);
}

void KvCache::set_late_start(SequenceId sequence, int64_t position) {
  AttentionMasses& masses = impl_->sequence(sequence).masses;
  masses.late_start = position;
  masses.reset(Mass::kLate);
}

void KvCache::set_near_tokens(SequenceId sequence, int64_t tokens) {
  KVA_CHECK(tokens >= 0, "a number of tokens");
  AttentionMasses& masses = impl_->sequence(sequence).masses;
  masses.near_tokens = std::min<int64_t>(tokens, INT32_MAX);
  masses.reset(Mass::kNear);
}

void KvCache::map_attention(SequenceId sequence) {
  impl_->sequence(sequence).masses.start_maps(impl_->table_count());
}

const AttentionMap& KvCache::attention_map(SequenceId sequence, int layer, int kv_head) const {
  const AttentionMasses& masses = impl_->sequence(sequence).masses;
  KVA_CHECK(masses.mapped(), "a map is there where it was asked for");
  return masses.map(impl_->table_index(layer, kv_head));
}

double KvCache::observe_seconds() const {
  return impl_->device ? impl_->device->observe_seconds() : impl_->attention.observe_seconds();
}

}  // namespace kva
