// Code for one kind of page side, chosen when compiling or at run time.
#pragma once

#include <type_traits>

#include "kernels/device_page.h"
#include "kernels/host_device.h"

namespace kva {

// A kind that the compiler knows.
template <SideKind kind>
using KnownKind = std::integral_constant<SideKind, kind>;

// One that is known at run time only, and may be any. A plain SideKind may be any that shares nothing: what
// reads only those is shorter.
struct AnyKind {
  SideKind kind;
};

template <SideKind kind>
KVA_HOST_DEVICE constexpr SideKind kind_of(KnownKind<kind>) {
  return kind;
}
KVA_HOST_DEVICE constexpr SideKind kind_of(AnyKind any) { return any.kind; }

// Whether sides of the kind share what their codes stand for.
KVA_HOST_DEVICE constexpr bool shares_numbers(SideKind) { return false; }
KVA_HOST_DEVICE constexpr bool shares_numbers(AnyKind any) {
  return any.kind >= SideKind::kLevels8 && any.kind <= SideKind::kCentroids;
}
template <SideKind kind>
KVA_HOST_DEVICE constexpr bool shares_numbers(KnownKind<kind>) {
  return shares_numbers(AnyKind{kind});
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

// Apart from the code for other kinds: as one function, all of them would take too long to compile.
template <SideKind kind, class Body>
KVA_RARE_CODE void run_apart(Body& body) {
  body.template run<kind>();
}

template <class Body>
KVA_LANE_CODE inline void with_token_kind(AnyKind any, Body& body) {
  switch (any.kind) {
    case SideKind::kF32: run_apart<SideKind::kF32>(body); break;
    case SideKind::kF16: run_apart<SideKind::kF16>(body); break;
    case SideKind::kBF16: run_apart<SideKind::kBF16>(body); break;
    case SideKind::kE4M3: run_apart<SideKind::kE4M3>(body); break;
    case SideKind::kE5M2: run_apart<SideKind::kE5M2>(body); break;
    case SideKind::kBits8: run_apart<SideKind::kBits8>(body); break;
    case SideKind::kBits4: run_apart<SideKind::kBits4>(body); break;
    case SideKind::kBits3: run_apart<SideKind::kBits3>(body); break;
    case SideKind::kBits2: run_apart<SideKind::kBits2>(body); break;
    case SideKind::kLevels8: run_apart<SideKind::kLevels8>(body); break;
    case SideKind::kLevels4: run_apart<SideKind::kLevels4>(body); break;
    case SideKind::kLevels3: run_apart<SideKind::kLevels3>(body); break;
    case SideKind::kLevels2: run_apart<SideKind::kLevels2>(body); break;
    case SideKind::kCentroids: run_apart<SideKind::kCentroids>(body); break;
    default: break;
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
    case SideKind::kBits8ByChannel: run_apart<SideKind::kBits8ByChannel>(body); break;
    case SideKind::kBits4ByChannel: run_apart<SideKind::kBits4ByChannel>(body); break;
    case SideKind::kBits3ByChannel: run_apart<SideKind::kBits3ByChannel>(body); break;
    case SideKind::kBits2ByChannel: run_apart<SideKind::kBits2ByChannel>(body); break;
    case SideKind::kLevels8ByChannel: run_apart<SideKind::kLevels8ByChannel>(body); break;
    case SideKind::kLevels4ByChannel: run_apart<SideKind::kLevels4ByChannel>(body); break;
    case SideKind::kLevels3ByChannel: run_apart<SideKind::kLevels3ByChannel>(body); break;
    case SideKind::kLevels2ByChannel: run_apart<SideKind::kLevels2ByChannel>(body); break;
    default: with_token_kind(any, body);
  }
}

}  // namespace kva
