// The tensor-core path: what it takes, and the two passes. Schedule and figures: README-sm90.md.
#pragma once

#include "params.h"

namespace gsa::sm90 {

// bfloat16, K and V multiples of 64 up to 512, slots in multiples of 4 up to 64, or 128.
bool fast_takes(const slot_attention::Dims& dims, int32_t dtype);
void fast_fwd(gsa_device& device, const slot_attention::ChunkFwd& p);
void fast_bwd(gsa_device& device, const slot_attention::ChunkBwd& p);

}  // namespace gsa::sm90
