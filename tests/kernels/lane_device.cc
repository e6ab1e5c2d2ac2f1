#include "tests/kernels/lane_device.h"

#include <algorithm>
#include <cstring>
#include <map>
#include <numeric>
#include <vector>

#include "kernels/check.h"
#include "kernels/cover_lanes.h"
#include "kernels/orthonormal_lanes.h"
#include "kernels/pack_lanes.h"
#include "kernels/recorded_device.h"
#include "kernels/similarity_lanes.h"
#include "tests/kernels/attention_lanes.h"
#include "tests/kernels/host_block.h"
#include "tests/kernels/host_warp.h"
#include "tests/kernels/lane_memory.h"
#include "tests/kernels/lane_solver.h"
#include "tests/kernels/projection_on_host.h"

namespace kva {
namespace {

// The block of kernels/orthonormal_lanes.h, whose warps run after each other.
struct HostRows {
  template <class Body>
  void rows(int64_t first, int64_t end, const Body& body) const {
    for (int64_t row = first; row < end; ++row) warp.run([&](HostWarp::Lane& lane) { body(lane, row); });
  }
  HostWarp& warp;
};

// Launches as they were when they were recorded.
struct LaneRecording : Recording {
  std::vector<Launch> launches;
};

class LaneDevice : public RecordedDevice {
 public:
  explicit LaneDevice(int64_t bytes) : memory_(bytes) {}
  ~LaneDevice() override {
    for (const auto& [values, tile] : tiles_) free(tile);
  }

  std::string name() const override { return "the host's lanes"; }
  DeviceMemory memory() const override { return memory_.counted(); }

  int64_t workspace_bytes() const override {
    int64_t values = 0;
    for (const auto& tile : tiles_) values += tile.first;
    return values * int64_t{sizeof(float)};
  }

  void* allocate(int64_t bytes) override { return memory_.allocate(bytes); }
  void free(void* memory) noexcept override {
    in_order();
    memory_.free(memory);
  }

  void upload(void* target, const void* source, int64_t bytes) override {
    in_order();
    const LaneMemory::Access access(memory_);
    std::memcpy(memory_.held(target, bytes), source, static_cast<std::size_t>(bytes));
  }
  void download(void* target, const void* source, int64_t bytes) override {
    in_order();
    const LaneMemory::Access access(memory_);
    std::memcpy(target, memory_.held(source, bytes), static_cast<std::size_t>(bytes));
    downloads_ += bytes;
  }
  std::unique_ptr<DeviceMark> mark() override {
    in_order();
    return std::make_unique<DeviceMark>();
  }
  // Recorded work may go on beside it.
  void fetch(std::span<const DevicePiece> pieces, const DeviceMark&) override {
    const LaneMemory::Access access(memory_);
    for (const DevicePiece& piece : pieces) {
      std::memcpy(piece.target, memory_.held(piece.source, piece.bytes),
                  static_cast<std::size_t>(piece.bytes));
      downloads_ += piece.bytes;
    }
  }
  void wait() override { in_order(); }

  int64_t downloads() const { return downloads_; }
  void spoil(LaneFaults faults) { faults_ = std::move(faults); }

  void choose(const SampleJob& job, int32_t* token) override;

  void place(const PlaceJob& job) override {
    in_order();
    each(job.count, 1, [&](int64_t i, int64_t) { place_one(job, i); });
  }
  void pack(const PackJob& job) override {
    in_order();
    const LaneMemory::Access access(memory_);
    HostBlock team(warp_);
    for (int32_t side = 0; side < job.count; ++side) pack_side(team, job, side);
  }
  void unpack(const UnpackJob& job) override {
    in_order();
    const LaneMemory::Access access(memory_);
    HostBlock team(warp_);
    for (int32_t run = 0; run < job.count; ++run) unpack_run(team, job, run);
  }
  void project(const ProjectionJob& job) override {
    in_order();
    const LaneMemory::Access access(memory_);
    project_on_host(warp_, job);
  }
  void nearest(const NearestJob& job) override {
    in_order();
    const LaneMemory::Access access(memory_);
    for (int64_t point = 0; point < job.points; ++point)
      warp_.run([&](HostWarp::Lane& lane) { nearest_row(lane, job, point); });
  }
  void count_bits(const BitCountJob& job) override {
    in_order();
    const LaneMemory::Access access(memory_);
    for (int32_t r = 0; r < job.rows; r += kBitRows)
      for (int32_t c = 0; c < job.columns; ++c) count_bits_of(job, r, c);
  }
  void compare_pairs(const PairJob& job) override;
  void cover(const CoverJob& job) override;
  void count_duplicates(const DuplicateJob& job) override;

  void widen_rows(const WidenRowsJob& job) override {
    in_order();
    const LaneMemory::Access access(memory_);
    for (int64_t row = 0; row < job.count * job.tokens; ++row)
      warp_.run([&](HostWarp::Lane& lane) { widen_row(lane, job, row); });
  }
  void draw_normals(const NormalJob& job) override {
    in_order();
    each(job.count, normal_pairs(job), [&](int64_t index, int64_t pair) { draw_pair(job, index, pair); });
  }
  void multiply_matrices(const MatrixProduct& product) override { solve(product); }
  void orthonormalize(const OrthonormalJob& job) override {
    if (!takes_blocks(job)) return solve(job);
    in_order();
    const LaneMemory::Access access(memory_);
    HostRows rows{warp_};
    for (int64_t i = 0; i < job.count; ++i) orthonormalize_block(rows, job, i);
  }
  void find_eigenvectors(const EigenJob& job) override { solve(job); }

 private:
  template <typename Job>
  void solve(const Job& job) {
    in_order();
    const LaneMemory::Access access(memory_);
    solve_on_host(job);
  }

  void launch(const Launch& launch) override {
    std::visit([this](const auto& job) { run(job); }, launch);
  }
  std::unique_ptr<Recording> record(std::span<const Launch> launches) override {
    auto recording = std::make_unique<LaneRecording>();
    recording->launches.assign(launches.begin(), launches.end());
    return recording;
  }
  void replay(Recording& recording) override {
    for (const Launch& recorded : static_cast<LaneRecording&>(recording).launches) launch(recorded);
  }

  void run(const CopyJob& job) {
    const LaneMemory::Access access(memory_);
    std::memcpy(memory_.held(job.target, job.bytes), memory_.held(job.source, job.bytes),
                static_cast<std::size_t>(job.bytes));
  }
  void run(const DeviceProduct& product);
  void multiply_wide(DeviceProduct product);
  void run(const NormJob& job) {
    const LaneMemory::Access access(memory_);
    for (int64_t row = 0; row < job.x.rows; ++row)
      warp_.run([&](HostWarp::Lane& lane) { norm_row(lane, job, row); });
  }
  void run(const ActivationJob& job) {
    each(job.x.rows, job.x.cols, [&](int64_t row, int64_t col) { activate_one(job, row, col); });
  }
  void run(const SumJob& job) {
    each(job.x.rows, job.x.cols, [&](int64_t row, int64_t col) { add_one(job, row, col); });
  }
  void run(const GatherJob& job) {
    each(job.out.rows, job.out.cols, [&](int64_t row, int64_t col) { gather_one(job, row, col); });
  }
  void run(const CastJob& job) {
    each(job.x.rows, job.x.cols, [&](int64_t row, int64_t col) { cast_one(job, row, col); });
  }
  void run(const RopeJob& job) {
    const int64_t pairs = job.x.cols / job.head_dim * (job.rotary_dim / 2);
    each(job.x.rows, pairs, [&](int64_t row, int64_t pair) { rotate_one(job, row, pair); });
  }
  void run(const AppendJob& job) {
    each(job.rows, int64_t{job.kv_heads} * job.head_dim,
         [&](int64_t row, int64_t col) { append_one(job, row, col); });
  }
  void run(const AttendJob& launch);

  template <PairKind kKind>
  void compare_items(const PairJob& job);
  template <typename Body>
  void each(int64_t rows, int64_t cols, const Body& body) {
    const LaneMemory::Access access(memory_);
    for (int64_t row = 0; row < rows; ++row)
      for (int64_t col = 0; col < cols; ++col) body(row, col);
  }

  LaneMemory memory_;
  int64_t downloads_ = 0;  // bytes
  LaneFaults faults_;
  HostWarp warp_;
  std::map<int64_t, float*> tiles_;  // of products with coded weights, by their numbers
};

void LaneDevice::run(const DeviceProduct& product) {
  if (!product.weights.scales) return multiply_wide(product);
  const int64_t values = kWidenedRows * product.weights.cols;
  float*& tile = tiles_[values];
  if (!tile) tile = static_cast<float*>(allocate(values * int64_t{sizeof(float)}));
  KVA_CHECK(tile != nullptr, "a device with room for a tile");
  multiply_in_tiles(product, tile, kWidenedRows, [&](const WidenJob& widen, const DeviceProduct& part) {
    each(part.weights.rows, part.weights.cols, [&](int64_t row, int64_t col) { widen_one(widen, row, col); });
    multiply_wide(part);
  });
}

void LaneDevice::multiply_wide(DeviceProduct product) {
  if (faults_.products) faults_.products(product);
  KVA_CHECK(product.x.type == product.weights.dtype, "x of the weights' type");
  KVA_CHECK(product.out.type == DType::kF32 && product.x.rows == product.out.rows &&
                product.x.cols == product.weights.cols && product.out.cols == product.weights.rows &&
                product.x.stride == product.x.cols && product.out.stride >= product.out.cols,
            "a product of fitting shapes");
  each(product.out.rows, product.out.cols, [&](int64_t row, int64_t col) {
    float sum = 0.0f;
    for (int64_t c = 0; c < product.x.cols; ++c)
      sum += product.x.at(row, c) *
             stored_value(product.weights.data, product.weights.dtype, col * product.weights.cols + c);
    if (product.bias) sum += product.bias[col];
    product.out.put(row, col, product.adds ? product.out.at(row, col) + sum : sum);
  });
}

void LaneDevice::choose(const SampleJob& job, int32_t* token) {
  in_order();
  const LaneMemory::Access access(memory_);
  std::vector<int32_t> order;
  SampleJob ordered = job;
  if ((job.top_k > 0 && job.top_k < job.vocabulary) || job.top_p < 1.0) {
    order.resize(static_cast<std::size_t>(job.vocabulary));
    std::iota(order.begin(), order.end(), 0);
    std::stable_sort(order.begin(), order.end(), [&](int32_t a, int32_t b) {
      return descending_key(ranked(job.logits[a])) < descending_key(ranked(job.logits[b]));
    });
    ordered.order = order.data();
  }
  SampleState state;
  warp_.run([&](HostWarp::Lane& lane) {
    const Likeliest best = likeliest_of(lane, job.logits, 0, job.vocabulary);
    int32_t chosen = token_or_fault(best);
    if (chosen >= 0 && job.temperature > 0.0) chosen = sample(lane, ordered, best, state);
    if (lane.lane() == 0) *token = chosen;
  });
}

void LaneDevice::run(const AttendJob& launch) {
  const LaneMemory::Access access(memory_);
  AttentionJob job = launch.job;
  if (faults_.attention) faults_.attention(launch.grid, job);
  attend_by_lanes<true>(warp_, launch.grid, job, launch.merges, launch.out, launch.out_stride);
}

template <PairKind kKind>
void LaneDevice::compare_items(const PairJob& job) {
  HostBlock block(warp_);
  const auto shared = std::make_unique<PairShared<metrics_of(kKind)>>();
  for (int32_t item = 0; item < job.count; ++item) {
    for (int32_t thread = 0; thread < kPairColumns; ++thread)
      begin_item<kKind>(job, job.items[item], thread, kPairColumns, *shared);
    for (int32_t thread = 0; thread < kPairColumns; ++thread) {
      ItemColumn<kKind, HostBlock> column(block, job, item, thread, *shared);
      column.take();
      column.finish();
    }
    for (int32_t thread = 0; thread < kPairColumns; ++thread)
      finish_item<kKind>(block, job, job.items[item], thread, kPairColumns, *shared);
  }
}

void LaneDevice::compare_pairs(const PairJob& job) {
  in_order();
  const LaneMemory::Access access(memory_);
  KVA_CHECK(job.count <= kMostPairItems && job.threshold_count <= kMaxThresholds, "items that can be named");
  switch (job.kind) {
    case PairKind::kHamming: return compare_items<PairKind::kHamming>(job);
    case PairKind::kJaccard: return compare_items<PairKind::kJaccard>(job);
    case PairKind::kProducts: break;
  }
  *job.near_count = 0;
  compare_items<PairKind::kProducts>(job);
  HostBlock block(warp_);
  for (uint32_t k = 0; k < *job.near_count; ++k)
    warp_.run([&](HostWarp::Lane& lane) { take_near(lane, block, job, k); });
}

void LaneDevice::cover(const CoverJob& job) {
  in_order();
  const LaneMemory::Access access(memory_);
  KVA_CHECK(job.rows <= kMostCoverRows && (job.same_pages() || job.column + job.columns <= job.row),
            "pages that are decided, or the same");
  HostBlock block(warp_);
  *job.near_count = 0;
  for (int32_t r = 0; r < job.rows; ++r)
    for (int32_t c = 0; c < job.columns; ++c) cover_pair(block, job, r, c);
  for (uint32_t k = 0; k < *job.near_count; ++k)
    warp_.run([&](HostWarp::Lane& lane) { cover_near_pair(lane, block, job, k); });
  constexpr int32_t kThreads = 32;
  for (int32_t r = 0; job.same_pages() && r < job.rows; ++r)
    for (int32_t thread = 0; thread < kThreads; ++thread)
      job.freed[job.row + r] |= freed_by_earlier(job, job.freed + job.row, r, thread, kThreads);
}

void LaneDevice::count_duplicates(const DuplicateJob& job) {
  in_order();
  const LaneMemory::Access access(memory_);
  HostBlock block(warp_);
  *job.duplicates = 0;
  for (int32_t page = 0; page < job.count; ++page) {
    job.hashes[page] = 0;
    for (int32_t lane = 0; lane < 32; ++lane) hash_page(block, job, page, lane);
    job.sorted[page] = page;
  }
  std::stable_sort(job.sorted, job.sorted + job.count,
                   [&](int32_t a, int32_t b) { return job.hashes[a] < job.hashes[b]; });
  for (int32_t k = 0; k < job.count; ++k) job.sorted_hashes[k] = job.hashes[job.sorted[k]];
  for (int32_t k = 1; k < job.count; ++k)
    warp_.run([&](HostWarp::Lane& lane) { count_if_equal(lane, block, job, k); });
}

}  // namespace

std::unique_ptr<DeviceOps> make_lane_device(int64_t memory_bytes) {
  return std::make_unique<LaneDevice>((memory_bytes + 4095) / 4096 * 4096);
}

int64_t lane_downloads(const DeviceOps& device) {
  return dynamic_cast<const LaneDevice&>(device).downloads();
}

void spoil(DeviceOps& device, LaneFaults faults) {
  dynamic_cast<LaneDevice&>(device).spoil(std::move(faults));
}

}  // namespace kva
