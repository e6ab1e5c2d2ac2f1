// Takes the outliers of a page side out of its rows in shared memory (kernels/pack_bare.h): the numbers that
// farthest_numbers() (compressors/codecs/outliers.h) names.
//
// Numbers are read once for the sums of their group, and for the range of each run of eight. A run's farthest
// number is one end of its range; and the n farthest numbers are not nearer than the n-th of the runs'
// farthest ones, so that only runs as far as that are looked at again. Where outliers are more than a quarter
// of the runs, or too many numbers equally far, all are.
#pragma once

#include <cmath>
#include <cstdint>
#include <type_traits>

#include "kernels/host_device.h"
#include "kernels/largest_lanes.h"
#include "kernels/outlier_math.h"
#include "kernels/pack_bare_job.h"
#include "kernels/pack_outliers.h"
#include "kernels/scale_math.h"
#include "kernels/staged_numbers.h"
#include "kernels/value_math.h"

namespace kva {

// Of numbers, NaN apart.
struct BareRange {
  float low = INFINITY;
  float high = -INFINITY;
  KVA_LANE_CODE void take(float x) {
    low = fminf(low, x);
    high = fmaxf(high, x);
  }
};

// kOfChannels: whether those share a scale, else tokens do.
template <bool kOfChannels, SideKind source, class Team>
class BareOutliers {
 public:
  // means and closeness: of groups, free until take_out() returns.
  KVA_LANE_CODE BareOutliers(Team& team, const PackJob& job, const PackSide& side, float* means,
                             float* closeness)
      : team_(team),
        job_(job),
        f_(job.format),
        side_(side),
        groups_(bare_groups(job.format)),
        octets_(bare_group_length(job.format) / kRun),
        numbers_(job.format.tokens * job.format.width),
        inverse_(1.0f / static_cast<float>(kOfChannels ? groups_ : octets_)),
        most_(bare_candidates(job.format)),
        means_(means),
        closeness_(closeness) {
    const BareShared at = bare_shared(job);
    staged_ = team.shared();
    lows_ = reinterpret_cast<float*>(staged_ + at.run_lows_at);
    highs_ = reinterpret_cast<float*>(staged_ + at.run_highs_at);
    counts_ = reinterpret_cast<uint32_t*>(staged_ + at.counts_at);
    sums_ = reinterpret_cast<float*>(staged_ + at.sums_at);
    keys_ = reinterpret_cast<uint32_t*>(staged_ + at.keys_at);
    runs_ = reinterpret_cast<uint16_t*>(staged_ + at.runs_at);
    places_ = reinterpret_cast<uint16_t*>(staged_ + at.places_at);
    outliers_ = reinterpret_cast<uint16_t*>(staged_ + at.outliers_at);
    memory_ = largest_memory(staged_ + at.largest_at, numbers_);
  }

  // Lists the outliers. Sees all numbers, and so whether one of them is refused.
  KVA_LANE_CODE void take_out() {
    measure();
    choose();
    put_places(team_, f_, side_.payload, [&](int32_t i) { return outliers_[i]; });
    // Without what was taken out: NaN is in no range.
    team_.each(f_.outliers, [&](int32_t i) {
      const int32_t run = run_at(outliers_[i]);
      float numbers[1][kRun];
      read(place_of(run), numbers);
      put_range(run, numbers[0]);
    });
  }

  // The range of what is left of a group; low > high where nothing is.
  KVA_LANE_CODE BareRange range(int32_t group) const {
    BareRange range;
    for (int32_t octet = 0; octet < octets_; ++octet) {
      range.low = fminf(range.low, lows_[run_of(group, octet)]);
      range.high = fmaxf(range.high, highs_[run_of(group, octet)]);
    }
    return range;
  }

  // Puts the zeros [groups] of the ranges, which every source type holds, in their places: the code of 0.
  KVA_LANE_CODE void put_zeros(const float* zeros) {
    team_.each(f_.outliers, [&](int32_t i) {
      const int32_t place = outliers_[i];
      put_staged<source>(staged_, place, zeros[group_of(run_at(place))]);
    });
  }

 private:
  static constexpr int kBand = kOfChannels ? 2 : 1;  // groups whose numbers are neighbours in memory
  static constexpr int kRun = kSpreadOctet;

  // A run is `octet` of `group`. Runs count such that neighbouring threads, which take neighbouring runs,
  // read neighbouring words.
  KVA_LANE_CODE int32_t run_of(int32_t group, int32_t octet) const {
    return kOfChannels ? octet * groups_ + group : group * octets_ + octet;
  }
  KVA_LANE_CODE int32_t group_of(int32_t run) const {
    const int32_t quotient = small_quotient(run, inverse_);
    return kOfChannels ? run - quotient * groups_ : quotient;
  }
  // Of the number at `place`.
  KVA_LANE_CODE int32_t run_at(int32_t place) const {
    if (!kOfChannels) return place / kRun;
    const int32_t token = small_quotient(place, inverse_);
    return token / kRun * groups_ + place - token * groups_;
  }
  // Where its first number is, and how far apart they are.
  KVA_LANE_CODE int32_t place_of(int32_t run) const {
    if (!kOfChannels) return run * kRun;
    const int32_t group = group_of(run);
    return (run - group) * kRun + group;
  }
  KVA_LANE_CODE int32_t apart() const { return kOfChannels ? groups_ : 1; }

  // The runs at `place` of neighbouring groups.
  template <int groups>
  KVA_LANE_CODE void read(int32_t place, float (&numbers)[groups][kRun]) const {
    if constexpr (!kOfChannels) {
      staged_numbers<source>(staged_, place, numbers[0]);
    } else {
      KVA_UNROLL
      for (int i = 0; i < kRun; ++i) {
        float neighbours[groups];
        staged_numbers<source>(staged_, place + i * groups_, neighbours);
        KVA_UNROLL
        for (int group = 0; group < groups; ++group) numbers[group][i] = neighbours[group];
      }
    }
  }

  KVA_LANE_CODE void put_range(int32_t run, const float (&numbers)[kRun]) {
    BareRange range;
    KVA_UNROLL
    for (const float x : numbers) range.take(x);
    lows_[run] = range.low;
    highs_[run] = range.high;
  }

  // Spreads of groups and ranges of runs.
  KVA_LANE_CODE void measure() {
    const int32_t bands = groups_ / kBand;
    const float inverse = 1.0f / static_cast<float>(bands);
    team_.each(bands * kSpreadParts, [&](int32_t i) {
      const int32_t part = kOfChannels ? small_quotient(i, inverse) : i % kSpreadParts;
      measure_part(kBand * (kOfChannels ? i - part * bands : i / kSpreadParts), part);
    });
    team_.each(groups_, [&](int32_t group) {
      SpreadSums parts[kSpreadParts];
      KVA_UNROLL
      for (int part = 0; part < kSpreadParts; ++part)
        parts[part] = {sums_[part * groups_ + group], sums_[(kSpreadParts + part) * groups_ + group]};
      const float first = staged_number<source>(staged_, place_of(run_of(group, 0)));
      const Spread of_group = spread_of(first, static_cast<float>(octets_ * kRun), parts);
      means_[group] = of_group.mean;
      closeness_[group] = of_group.closeness;
      if (group == 0) counts_[0] = counts_[1] = 0;
    });
  }
  KVA_LANE_CODE void measure_part(int32_t group, int32_t part) {
    float first[kBand];
    SpreadPart sums[kBand];
    KVA_UNROLL
    for (int of = 0; of < kBand; ++of)
      first[of] = staged_number<source>(staged_, place_of(run_of(group + of, 0)));
    bool refused = false;
    for (int32_t octet = part; octet < octets_; octet += kSpreadParts) {
      float numbers[kBand][kRun];
      read(kOfChannels ? octet * kRun * groups_ + group : run_of(group, octet) * kRun, numbers);
      KVA_UNROLL
      for (int of = 0; of < kBand; ++of) {
        put_range(run_of(group + of, octet), numbers[of]);
        KVA_UNROLL
        for (int n = 0; n < kRun; ++n) {
          sums[of].add(n, numbers[of][n] - first[of]);
          // A sum tells of an f16 that is not finite.
          if (source != SideKind::kF16) refused |= is_beyond_f16(numbers[of][n]);
        }
      }
    }
    KVA_UNROLL
    for (int of = 0; of < kBand; ++of) {
      const SpreadSums whole = sums[of].sums();
      sums_[part * groups_ + group + of] = whole.sum;
      sums_[(kSpreadParts + part) * groups_ + group + of] = whole.squares;
      refused |= !(fabsf(whole.sum) < INFINITY);
    }
    if (refused) *job_.refused = 1;
  }

  KVA_LANE_CODE void choose() {
    if (f_.outliers <= most_ / 2) {
      find_candidates();
      const auto count = static_cast<int32_t>(counts_[1]);
      if (static_cast<int32_t>(counts_[0]) <= most_ && count <= most_) {
        const auto place = [&](int32_t i) { return int32_t{places_[i]}; };
        team_.warp([&](auto& warp) {
          WarpTeam<Team, std::remove_reference_t<decltype(warp)>> alone{team_, warp};
          choose_largest(
              alone, memory_, numbers_, count, f_.outliers, [&](int32_t i) { return keys_[i]; }, place);
        });
        return list(count, place);
      }
    }
    const auto key = [&](int32_t place) {
      return key_of(staged_number<source>(staged_, place), group_of(run_at(place)));
    };
    const auto place_of_all = [](int32_t place) { return place; };
    choose_largest(team_, memory_, numbers_, numbers_, f_.outliers, key, place_of_all);
    list(numbers_, place_of_all);
  }
  KVA_LANE_CODE uint32_t key_of(float x, int32_t group) const {
    return distance_key(distance_of(x, {means_[group], closeness_[group]}));
  }

  // Numbers that may be outliers, in any order: counts_[1] of them, of counts_[0] runs, of which as many are
  // listed as there is room for.
  KVA_LANE_CODE void find_candidates() {
    const int32_t runs = numbers_ / kRun;
    team_.each(runs, [&](int32_t run) {
      const int32_t group = group_of(run);
      const uint32_t low = key_of(lows_[run], group), high = key_of(highs_[run], group);
      keys_[run] = low > high ? low : high;
    });
    constexpr int kBoundBits = 16;  // so many of a key's are near enough
    find_largest<kBoundBits>(team_, memory_, runs, f_.outliers, [&](int32_t run) { return keys_[run]; });
    const auto is_far = [&](uint32_t key) { return key >> (32 - kBoundBits) >= memory_.found[0]; };
    team_.each(runs, [&](int32_t run) {
      if (!is_far(keys_[run])) return;
      const auto at = static_cast<int32_t>(team_.take(counts_, 1));
      if (at < most_) runs_[at] = static_cast<uint16_t>(run);
    });
    team_.each(smaller(static_cast<int32_t>(counts_[0]), most_), [&](int32_t i) {
      const int32_t group = group_of(runs_[i]), place = place_of(runs_[i]);
      float numbers[1][kRun];
      read(place, numbers);
      KVA_UNROLL
      for (int n = 0; n < kRun; ++n) {
        const uint32_t key = key_of(numbers[0][n], group);
        if (!is_far(key)) continue;
        const auto at = static_cast<int32_t>(team_.take(counts_ + 1, 1));
        if (at >= most_) continue;
        keys_[at] = key;
        places_[at] = static_cast<uint16_t>(place + n * apart());
      }
    });
  }

  // Lists the outliers among `count` numbers, and leaves NaN in their places.
  template <class Place>
  KVA_LANE_CODE void list(int32_t count, const Place& place) {
    auto* values = reinterpret_cast<uint16_t*>(side_.payload + f_.outlier_values_at);
    each_chosen(team_, memory_, count, place, [&](int32_t i, int32_t at) {
      values[i] = f16_code(staged_number<source>(staged_, at));
      put_staged<source>(staged_, at, NAN);
      outliers_[i] = static_cast<uint16_t>(at);
    });
  }

  Team& team_;
  const PackJob& job_;
  const SideFormat& f_;
  const PackSide& side_;
  int32_t groups_;  // what shares a scale
  int32_t octets_;  // of one
  int32_t numbers_;
  float inverse_;  // of how many runs stand next to each other
  int32_t most_;   // candidates, and runs that have some
  float* means_;
  float* closeness_;
  std::byte* staged_;
  float* lows_;  // of runs
  float* highs_;
  uint32_t* counts_;
  float* sums_;
  uint32_t* keys_;
  uint16_t* runs_;
  uint16_t* places_;
  uint16_t* outliers_;
  LargestMemory memory_;
};

}  // namespace kva
