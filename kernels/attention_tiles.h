// Which attention is done tile by tile on tensor cores: the many query rows of a prompt's chunk, against
// pages whose numbers are f16 or bf16, or become f16 (kernels/tile_attention.h says how, and what is
// rounded).
#pragma once

#include <cstdint>
#include <type_traits>

#include "kernels/device_page.h"
#include "kernels/host_device.h"

namespace kva {

// Query rows of an item that is done in tiles, 16 a warp, and the threads that do it.
inline constexpr int kTiledRows = 64;
inline constexpr int kTileThreads = 128;
// Fewer rows than a warp has leave most of a tile empty.
inline constexpr int32_t kLeastTileRows = 16;

// What fills tiles: rows of f16 or of bf16 as they are; or numbers that become f16 first.
enum class TileKind : uint8_t { kNone, kF16, kBF16, kDecoded };

// Head dimensions that there are kernels for.
KVA_HOST_DEVICE constexpr bool is_tensor_width(int32_t width) {
  return width == 64 || width == 80 || width == 96 || width == 128 || width == 256;
}

// Calls body(std::integral_constant<int, width>()), if is_tensor_width().
template <class Body>
void with_tensor_width(int32_t width, const Body& body) {
  switch (width) {
    case 64: return body(std::integral_constant<int, 64>());
    case 80: return body(std::integral_constant<int, 80>());
    case 96: return body(std::integral_constant<int, 96>());
    case 128: return body(std::integral_constant<int, 128>());
    case 256: return body(std::integral_constant<int, 256>());
    default: break;
  }
}

// f16 holds every fp8 number; codes of up to 8 bits with their scales are rounded to it. What f32 and bf16
// rows hold may be beyond its range.
KVA_HOST_DEVICE constexpr bool becomes_f16(SideKind kind) {
  return kind == SideKind::kF16 || kind == SideKind::kE4M3 || kind == SideKind::kE5M2 ||
         (kind >= SideKind::kBits8 && kind <= SideKind::kBits2ByChannel);
}

// How pages of these formats fill tiles; kNone: they do not. Turned rows do: queries and sums are turned.
KVA_HOST_DEVICE constexpr TileKind tile_kind(const SideFormat& keys, const SideFormat& values) {
  if (keys.width != values.width || !is_tensor_width(keys.width) || keys.on_basis || values.on_basis ||
      has_parts(keys) || has_parts(values))
    return TileKind::kNone;
  if (keys.kind == values.kind && keys.kind == SideKind::kF16) return TileKind::kF16;
  if (keys.kind == values.kind && keys.kind == SideKind::kBF16) return TileKind::kBF16;
  return becomes_f16(keys.kind) && becomes_f16(values.kind) ? TileKind::kDecoded : TileKind::kNone;
}

}  // namespace kva
