// The sweeps as the host sees them: which shapes they take, and the passes.
#pragma once

#include "../../cuda/device.h"
#include "layer_params.h"

namespace gsa::sm90 {

// Of the shapes that they take, those where the sweeps were measured to be the faster path: walks, one a
// sequence and query head, for half of the clusters that the device runs at once (backward five eighths,
// below a width of 256 three quarters). Fewer, and those of packed documents (cu_seqlens), are cut: from
// 4,096 tokens x query heads on at a width of 512, from 131,072 on at 256 and 128; of 128 slots they go
// elsewhere.
bool sweep_is_faster(const gsa_device& device, const slot_attention::Dims& d, bool documents, bool backward);

bool sweep_takes(const slot_attention::Dims& d, int32_t dtype);
void sweep_fwd(gsa_device& device, const slot_attention::ChunkFwd& p);

void sweep_bwd(gsa_device& device, const slot_attention::ChunkBwd& p);

// The layer form of the forward, for shapes that the sweeps take: as many query heads as key/value heads, and
// nobody wants q, k and v, which are never written.
bool sweep_takes_layer(const slot_attention::LayerFwd& p);
void sweep_layer_fwd(gsa_device& device, const slot_attention::LayerFwd& p);

// The backward of the layer form, for shapes that the sweeps take: as many query heads as key/value heads.
bool sweep_takes_layer(const slot_attention::LayerBwd& p);
void sweep_layer_bwd(gsa_device& device, const slot_attention::LayerBwd& p);

}  // namespace gsa::sm90
