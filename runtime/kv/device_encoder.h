// Sides that are coded on the device from the pages that lie there, without their numbers coming to the host:
// from rows as they are, their coefficients on a basis, or what codes of tokens stand for.
#pragma once

#include <cstdint>
#include <span>
#include <vector>

#include "kernels/device_ops.h"
#include "kernels/pack_bare_job.h"
#include "runtime/backend/backend.h"
#include "runtime/kv/byte_ledger.h"
#include "runtime/kv/device_array.h"
#include "runtime/kv/page_store.h"
#include "runtime/kv/plan.h"

namespace kva {

// Everything passed to the constructor outlives the object. Used by one thread at a time.
class DeviceEncoder {
 public:
  // backend: a device's, with the store's payloads.
  DeviceEncoder(PageStore& store, Backend& backend);

  // Whether `codec` can be coded here from such tokens: of dense sides, for codes, or for rows of their own
  // type; with a projection (NewSide's, or null), for rows of any type; of coded sides whose kernels read
  // all of a token (unpacks()), for codes.
  static bool codes(const SideCodec& codec, std::span<const SideTokens> sources,
                    const RowProjection* projection, const PageStore& store);

  // Writes the payloads of all sides of the plan that have sources: plan.sides[i] into sides[i]. Returns
  // whether a number was refused, not finite or beyond f16: then they are not whole. Throws InputError when
  // out of memory.
  bool code(const Plan& plan, std::span<const SideId> sides);

  // Adds workspace.
  void add_to(ByteLedger& ledger) const;

 private:
  // Sides that one launch codes: a launch's job, and its sides from `first` on.
  struct Group {
    PackJob job;
    ProjectionJob projection;  // whose results are coded; rank 0: none
    bool unpacked = false;     // what codes stand for is coded
    std::vector<PackSide> sides;
    std::vector<ProjectionSide> projected;
    std::vector<UnpackRun> runs;  // of all sides, and where each side's begin, and those behind the last
    std::vector<std::size_t> first_run = {0};
    // Of each side in the rows' addresses, where it has any; and of the rows that they are blended with.
    std::vector<std::size_t> first_row, first_other;
    int64_t at_once = 0;  // sides that the scratch has room for

    int64_t pack_bytes() const { return pack_scratch_bytes(job); }
    // Of numbers that are made before a side is coded.
    int64_t projection_bytes() const;
    int64_t unpacked_bytes() const { return unpacked ? unpacked_numbers() * int64_t{sizeof(float)} : 0; }
    int64_t unpacked_numbers() const;
  };

  PackJob job_of(const Plan& plan, const NewSide& side) const;
  static ProjectionJob projection_for(const NewSide& side, PackJob& job);
  Group& group_of(const PackJob& job, const ProjectionJob& projection, bool unpacked);
  // Where the tokens are: the first one's address, or the place of all in the rows' addresses.
  std::size_t place_rows(std::span<const SideTokens> tokens, int64_t row_bytes, const std::byte*& first);
  void add(const Plan& plan, const NewSide& side, std::span<const SideId> ids);
  void add_projected(Group& group, const NewSide& side, PackSide packed);
  void add_unpacked(Group& group, const NewSide& side, PackSide packed);
  int32_t format_of(SideId id);
  void reserve_scratch();
  void settle(Group& group);
  void settle_unpacked(Group& group, std::size_t index, float* numbers);
  // Of sides [first, first + count) of the group, whose runs begin at first_run.
  void unpack(const Group& group, int64_t first, int64_t count, int64_t first_run);
  void launch(const Group& group, int64_t first_side, int64_t first_projected, int64_t first_run);

  PageStore& store_;
  Backend& backend_;
  std::vector<Group> groups_;
  std::vector<const std::byte*> row_addresses_;
  std::vector<SideFormat> coded_formats_;
  DeviceArray<const std::byte*> rows_;
  DeviceArray<PackSide> sides_;
  DeviceArray<ProjectionSide> projected_;
  DeviceArray<SideFormat> formats_;  // coded_formats_
  DeviceArray<UnpackRun> runs_;
  DeviceArray<std::byte> scratch_;
  DeviceArray<int32_t> refused_;
};

}  // namespace kva
