// The sweeps as the host sees them: which shapes they take, and the passes.
#pragma once

#include "../../cuda/device.h"
#include "params.h"

namespace gsa::sm90 {

bool sweep_takes(const slot_attention::Dims& d, int32_t dtype);
void sweep_fwd(gsa_device& device, const slot_attention::ChunkFwd& p);

bool sweep_bwd_takes(const slot_attention::Dims& d, int32_t dtype);
void sweep_bwd(gsa_device& device, const slot_attention::ChunkBwd& p);

}  // namespace gsa::sm90
