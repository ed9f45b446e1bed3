// The path for every shape, dtype and gate: see general_sm90.cu.
#pragma once

#include "params.h"

namespace gsa::sm90 {

void general_fwd(gsa_device& device, const slot_attention::ChunkFwd& p, int32_t dtype);
void general_bwd(gsa_device& device, const slot_attention::ChunkBwd& p, int32_t dtype);

}  // namespace gsa::sm90
