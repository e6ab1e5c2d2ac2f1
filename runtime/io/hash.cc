#include "runtime/io/hash.h"

#include <fmt/format.h>
#include <xxhash.h>

namespace kva {

namespace {

std::string printed(const XXH128_hash_t& digest) {
  return fmt::format("xxh3:{:016x}{:016x}", digest.high64, digest.low64);
}

}  // namespace

std::string bytes_hash(std::span<const std::byte> bytes) {
  return printed(XXH3_128bits(bytes.data(), bytes.size()));
}

std::string text_hash(std::string_view text) { return bytes_hash(std::as_bytes(std::span(text))); }

struct RunningHash::State {
  using Free = XXH_errorcode (*)(XXH3_state_t*);
  std::unique_ptr<XXH3_state_t, Free> xxh{XXH3_createState(), XXH3_freeState};
};

RunningHash::RunningHash() : state_(std::make_unique<State>()) { XXH3_128bits_reset(state_->xxh.get()); }
RunningHash::~RunningHash() = default;
RunningHash::RunningHash(RunningHash&&) noexcept = default;
RunningHash& RunningHash::operator=(RunningHash&&) noexcept = default;

void RunningHash::add(std::span<const std::byte> bytes) {
  XXH3_128bits_update(state_->xxh.get(), bytes.data(), bytes.size());
}

std::string RunningHash::text() const { return printed(XXH3_128bits_digest(state_->xxh.get())); }

}  // namespace kva
