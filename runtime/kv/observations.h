// What a policy may ask to be told of the tokens of a cache's tables.
#pragma once

namespace kva {

// A mass is the softmax weight that a token got from queries, summed over them and averaged over the query
// heads of its KV head. Collected from the moment it is asked for; its memory is counted as tables.
struct Observations {
  bool attention_mass = false;  // of all queries
  bool late_mass = false;       // of queries from a position on that is set for the sequence
  bool near_mass = false;       // of queries that come so many tokens behind the key at most, set likewise

  friend Observations operator|(const Observations& a, const Observations& b) {
    return {.attention_mass = a.attention_mass || b.attention_mass,
            .late_mass = a.late_mass || b.late_mass,
            .near_mass = a.near_mass || b.near_mass};
  }
  bool any() const { return attention_mass || late_mass || near_mass; }
};

}  // namespace kva
