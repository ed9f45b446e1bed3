// The tensor-core path: what it takes, and the two passes. Schedule and figures: README-sm90.md.
#pragma once

#include "params.h"

namespace gsa::sm90 {

// bfloat16, K and V multiples of 64 up to 512, slots in multiples of 4 up to 64, or 128.
bool fast_takes(const slot_attention::Dims& dims, int32_t dtype);
// Exact: nothing is rounded to bfloat16 but what the caller stores so. For memory and time see
// README-sm90.md.
void fast_fwd(gsa_device& device, const slot_attention::ChunkFwd& p, bool exact);
void fast_bwd(gsa_device& device, const slot_attention::ChunkBwd& p, bool exact);
// While every chunk of every query head has a multiprocessor, a call takes as long as one of them.
bool exact_costs_little(const gsa_device& device, const slot_attention::Dims& dims, bool packed);

}  // namespace gsa::sm90
