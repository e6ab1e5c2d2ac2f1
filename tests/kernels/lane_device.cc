#include "tests/kernels/lane_device.h"

#include <sys/mman.h>

#include <algorithm>
#include <cstring>
#include <map>
#include <mutex>
#include <numeric>
#include <vector>

#include "kernels/attention_observe.h"
#include "kernels/check.h"
#include "kernels/recorded_device.h"
#include "tests/kernels/host_warp.h"

namespace kva {
namespace {

constexpr int64_t kAligned = 256;

// Launches as they were when they were recorded.
struct LaneRecording : Recording {
  std::vector<Launch> launches;
};

class LaneDevice : public RecordedDevice {
 public:
  explicit LaneDevice(int64_t bytes) : bytes_(bytes) {
    void* memory = ::mmap(nullptr, static_cast<std::size_t>(bytes), PROT_NONE,
                          MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
    KVA_CHECK(memory != MAP_FAILED, "address space for a device");
    memory_ = static_cast<std::byte*>(memory);
    free_[0] = bytes;
  }
  ~LaneDevice() override {
    for (const auto& [values, tile] : tiles_) free(tile);
    KVA_CHECK(taken_.empty(), "memory outlives its device");
    ::munmap(memory_, static_cast<std::size_t>(bytes_));
  }

  std::string name() const override { return "the host's lanes"; }
  DeviceMemory memory() const override {
    const std::scoped_lock lock(lists_);
    const int64_t free = std::accumulate(free_.begin(), free_.end(), int64_t{0},
                                         [](int64_t sum, const auto& part) { return sum + part.second; });
    return {bytes_, free};
  }

  int64_t workspace_bytes() const override {
    int64_t values = 0;
    for (const auto& tile : tiles_) values += tile.first;
    return values * int64_t{sizeof(float)};
  }

  void* allocate(int64_t bytes) override {
    KVA_CHECK(bytes > 0, "an allocation of something");
    const std::scoped_lock lock(lists_);
    const int64_t held = (bytes + kAligned - 1) / kAligned * kAligned;
    for (auto part = free_.begin(); part != free_.end(); ++part) {
      if (part->second < held) continue;
      const auto [at, size] = *part;
      free_.erase(part);
      if (size > held) free_[at + held] = size - held;
      taken_[at] = held;
      return memory_ + at;
    }
    return nullptr;
  }
  void free(void* memory) noexcept override {
    in_order();
    const std::scoped_lock lock(lists_);
    const auto part = taken_.find(static_cast<std::byte*>(memory) - memory_);
    KVA_CHECK(part != taken_.end(), "memory of this device, freed once");
    auto [at, size] = *part;
    taken_.erase(part);
    auto next = free_.lower_bound(at);
    if (next != free_.end() && next->first == at + size) {
      size += next->second;
      next = free_.erase(next);
    }
    if (next != free_.begin() && std::prev(next)->first + std::prev(next)->second == at)
      std::prev(next)->second += size;
    else
      free_[at] = size;
  }

  void upload(void* target, const void* source, int64_t bytes) override {
    in_order();
    const Access access(*this);
    std::memcpy(held(target, bytes), source, static_cast<std::size_t>(bytes));
  }
  void download(void* target, const void* source, int64_t bytes) override {
    in_order();
    const Access access(*this);
    std::memcpy(target, held(source, bytes), static_cast<std::size_t>(bytes));
  }
  void wait() override { in_order(); }

  void choose(const SampleJob& job, int32_t* token) override;

  void place(const PlaceJob& job) override {
    in_order();
    each(job.count, 1, [&](int64_t i, int64_t) { place_one(job, i); });
  }
  void pack(const SideFormat& format, const float* rows, int64_t rows_stride, std::byte* const* payloads,
            int32_t count) override;
  void nearest(const NearestJob& job) override {
    in_order();
    const Access access(*this);
    for (int64_t point = 0; point < job.points; ++point)
      warp_.run([&](HostWarp::Lane& lane) { nearest_row(lane, job, point); });
  }

 private:
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
    const Access access(*this);
    std::memcpy(held(job.target, job.bytes), held(job.source, job.bytes),
                static_cast<std::size_t>(job.bytes));
  }
  void run(const DeviceProduct& product);
  void multiply_wide(const DeviceProduct& product);
  void run(const NormJob& job) {
    const Access access(*this);
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
  void run(const HadamardJob& job) {
    const Access access(*this);
    std::vector<float> shared(static_cast<std::size_t>(job.cols));
    for (int64_t row = 0; row < job.count; ++row)
      warp_.run([&](HostWarp::Lane& lane) {
        hadamard_row(lane, job.rows + row * job.cols, job.cols, shared.data());
      });
  }
  void run(const AttendJob& launch);

  // The device's own work: the host may use its memory for so long.
  class Access {
   public:
    explicit Access(LaneDevice& device) : device_(device), lock_(device.mutex_) {
      device_.protect(PROT_READ | PROT_WRITE);
    }
    ~Access() { device_.protect(PROT_NONE); }
    Access(const Access&) = delete;
    Access& operator=(const Access&) = delete;

   private:
    LaneDevice& device_;
    const std::scoped_lock<std::mutex> lock_;
  };

  void protect(int rights) {
    KVA_CHECK(::mprotect(memory_, static_cast<std::size_t>(bytes_), rights) == 0, "rights to memory");
  }
  // `memory`, of which `bytes` bytes lie in one live allocation.
  template <typename T>
  T* held(T* memory, int64_t bytes) const {
    const std::scoped_lock lock(lists_);
    const int64_t at = static_cast<const std::byte*>(memory) - memory_;
    auto part = taken_.upper_bound(at);
    KVA_CHECK(part != taken_.begin() && at + bytes <= std::prev(part)->first + std::prev(part)->second,
              "bytes of the device");
    return memory;
  }
  template <typename Body>
  void each(int64_t rows, int64_t cols, const Body& body) {
    const Access access(*this);
    for (int64_t row = 0; row < rows; ++row)
      for (int64_t col = 0; col < cols; ++col) body(row, col);
  }

  std::mutex mutex_;          // of the work
  mutable std::mutex lists_;  // of free_ and taken_
  std::byte* memory_ = nullptr;
  int64_t bytes_;
  std::map<int64_t, int64_t> free_;   // offset -> bytes; neighbours are joined
  std::map<int64_t, int64_t> taken_;  // the same, handed out
  HostWarp warp_;
  std::map<int64_t, float*> tiles_;  // of products with coded weights, by their numbers
};

void LaneDevice::run(const DeviceProduct& product) {
  if (!product.weights.scales) return multiply_wide(product);
  const int64_t values = kTileRows * product.weights.cols;
  float*& tile = tiles_[values];
  if (!tile) tile = static_cast<float*>(allocate(values * int64_t{sizeof(float)}));
  KVA_CHECK(tile != nullptr, "a device with room for a tile");
  multiply_in_tiles(product, tile, kTileRows, [&](const WidenJob& widen, const DeviceProduct& part) {
    each(part.weights.rows, part.weights.cols, [&](int64_t row, int64_t col) { widen_one(widen, row, col); });
    multiply_wide(part);
  });
}

void LaneDevice::multiply_wide(const DeviceProduct& product) {
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
  const Access access(*this);
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

void LaneDevice::pack(const SideFormat& format, const float* rows, int64_t rows_stride,
                      std::byte* const* payloads, int32_t count) {
  in_order();
  const Access access(*this);
  const int32_t scales = format.groups * (format.scale_by_token ? format.tokens : format.width);
  const int32_t lanes = packed_lanes(format);
  for (int32_t side = 0; side < count; ++side) {
    const PackJob job{format, rows + side * rows_stride, format.width, payloads[side]};
    for (int32_t i = 0; i < scales; ++i) pack_scale(job, i);
    for (int32_t i = 0; i < packed_rows(format) * lanes; ++i) pack_lane(job, i / lanes, i % lanes);
  }
}

void LaneDevice::run(const AttendJob& launch) {
  const AttentionGrid& grid = launch.grid;
  const AttentionJob& job = launch.job;
  const AttentionMerge* merges = launch.merges;
  const Access access(*this);
  std::vector<float> shared(
      static_cast<std::size_t>(attention_shared_values(job.head_dim, job.longest_page)));
  for (const AttentionBucket& bucket : grid.buckets)
    for (int32_t i = 0; i < bucket.count; ++i)
      warp_.run([&](HostWarp::Lane& lane) {
        attend_item<true>(lane, job, bucket.keys, bucket.values, job.items[bucket.first + i], shared.data());
      });
  for (int32_t i = 0; i < grid.tables; ++i)
    for (int32_t row = 0; row < merges[i].rows; ++row) {
      float* to = launch.out + result_at(merges[i], row, job.group, job.head_dim, launch.out_stride);
      for (int32_t c = 0; c < job.head_dim; ++c)
        to[c] = merged_value(merges[i], row, c, job.head_dim, job.state_values, job.state_max, job.state_sum);
      if (job.masses.pages) put_finals(merges[i], row, job);
    }
  if (grid.tables == 0 || !job.masses.pages) return;
  for (int32_t entry = 0; entry < job.masses.count; ++entry)
    warp_.run([&](HostWarp::Lane& lane) { observe_page(lane, job, entry, shared.data()); });
}

}  // namespace

std::unique_ptr<DeviceOps> make_lane_device(int64_t memory_bytes) {
  return std::make_unique<LaneDevice>((memory_bytes + 4095) / 4096 * 4096);
}

}  // namespace kva
