// Where the bytes of a KV cache are. Every figure is bytes held, not bytes asked for.
#pragma once

#include <cstdint>

namespace kva {

struct ByteLedger {
  int64_t payload = 0;    // encoded values of pages in use
  int64_t scales = 0;     // quantizer scales and outlier lists of those pages
  int64_t side = 0;       // bases, codebooks and other data shared by pages
  int64_t tables = 0;     // page tables, refs and refcounts
  int64_t slack = 0;      // slab slots and page rows that hold no token
  int64_t workspace = 0;  // scratch of attention and codecs; not part of held()
  int64_t peak = 0;       // the largest held() so far
  // Of held() and workspace: what is in the host's memory beside pages that are in a device's.
  int64_t beside = 0;

  int64_t held() const { return payload + scales + side + tables + slack; }
};

}  // namespace kva
