// Code for one kind of page side, chosen when compiling or at run time.
#pragma once

#include <type_traits>

#include "kernels/device_page.h"
#include "kernels/host_device.h"

namespace kva {

// A kind that the compiler knows.
template <SideKind kind>
using KnownKind = std::integral_constant<SideKind, kind>;

// One that is known at run time only, and may be any. A plain SideKind may be any without levels: what reads
// only those is shorter.
struct AnyKind {
  SideKind kind;
};

// Whether a side of the kind has levels.
KVA_HOST_DEVICE constexpr bool may_have_levels(SideKind) { return false; }
KVA_HOST_DEVICE constexpr bool may_have_levels(AnyKind any) { return has_levels(any.kind); }
template <SideKind kind>
KVA_HOST_DEVICE constexpr bool may_have_levels(KnownKind<kind>) {
  return has_levels(kind);
}

// Calls body.template run<kind>().
template <SideKind kind, class Body>
KVA_LANE_CODE inline void with_kind(KnownKind<kind>, Body& body) {
  body.template run<kind>();
}

// The same for a kind of rows of tokens that is known at run time only. Nothing happens for another.
template <class Body>
KVA_LANE_CODE inline void with_token_kind(SideKind kind, Body& body) {
  switch (kind) {
    case SideKind::kF32: body.template run<SideKind::kF32>(); break;
    case SideKind::kF16: body.template run<SideKind::kF16>(); break;
    case SideKind::kBF16: body.template run<SideKind::kBF16>(); break;
    case SideKind::kE4M3: body.template run<SideKind::kE4M3>(); break;
    case SideKind::kE5M2: body.template run<SideKind::kE5M2>(); break;
    case SideKind::kBits8: body.template run<SideKind::kBits8>(); break;
    case SideKind::kBits4: body.template run<SideKind::kBits4>(); break;
    case SideKind::kBits3: body.template run<SideKind::kBits3>(); break;
    case SideKind::kBits2: body.template run<SideKind::kBits2>(); break;
    default: break;
  }
}
template <SideKind kind, class Body>
KVA_LANE_CODE inline void with_token_kind(KnownKind<kind> known, Body& body) {
  with_kind(known, body);
}

template <class Body>
KVA_LANE_CODE inline void with_token_kind(AnyKind any, Body& body) {
  switch (any.kind) {
    case SideKind::kLevels8: body.template run<SideKind::kLevels8>(); break;
    case SideKind::kLevels4: body.template run<SideKind::kLevels4>(); break;
    case SideKind::kLevels3: body.template run<SideKind::kLevels3>(); break;
    case SideKind::kLevels2: body.template run<SideKind::kLevels2>(); break;
    default: with_token_kind(any.kind, body);
  }
}

template <class Body>
KVA_LANE_CODE inline void with_kind(SideKind kind, Body& body) {
  switch (kind) {
    case SideKind::kBits8ByChannel: body.template run<SideKind::kBits8ByChannel>(); break;
    case SideKind::kBits4ByChannel: body.template run<SideKind::kBits4ByChannel>(); break;
    case SideKind::kBits3ByChannel: body.template run<SideKind::kBits3ByChannel>(); break;
    case SideKind::kBits2ByChannel: body.template run<SideKind::kBits2ByChannel>(); break;
    default: with_token_kind(kind, body);
  }
}

template <class Body>
KVA_LANE_CODE inline void with_kind(AnyKind any, Body& body) {
  switch (any.kind) {
    case SideKind::kLevels8ByChannel: body.template run<SideKind::kLevels8ByChannel>(); break;
    case SideKind::kLevels4ByChannel: body.template run<SideKind::kLevels4ByChannel>(); break;
    case SideKind::kLevels3ByChannel: body.template run<SideKind::kLevels3ByChannel>(); break;
    case SideKind::kLevels2ByChannel: body.template run<SideKind::kLevels2ByChannel>(); break;
    case SideKind::kLevels8:
    case SideKind::kLevels4:
    case SideKind::kLevels3:
    case SideKind::kLevels2: with_token_kind(any, body); break;
    default: with_kind(any.kind, body);
  }
}

}  // namespace kva
