// Gated slot attention from the joined projections of a layer, on the CPU: the inputs of the operator, then
// the operator, and back.
#include <memory>
#include <vector>

#include "layer_params.h"

namespace gsa::cpu {

void gsa_chunk_bwd(gsa_device&, const Args&);
void gsa_chunk_fwd(gsa_device&, const Args&);
void gsa_inputs_bwd(gsa_device&, const Args&);
void gsa_inputs_fwd(gsa_device&, const Args&);

namespace {

void expect_float32(const Args& args) {
  if (args.in(0).dtype == GSA_BFLOAT16)
    fail(GSA_UNSUPPORTED, "Expected float32 for x on the CPU but received bfloat16; convert it first");
}

// For the time of one op.
using Memory = std::vector<std::unique_ptr<char[]>>;
auto allocator(Memory& memory) {
  return [&memory](uint64_t bytes) { return memory.emplace_back(new char[bytes]).get(); };
}

}  // namespace

void gsa_layer_fwd(gsa_device& device, const Args& args) {
  expect_float32(args);
  slot_attention::read_layer_fwd(args, GSA_FLOAT32);
  Memory memory;
  slot_attention::compose_layer_fwd(device, args, gsa_inputs_fwd, gsa_chunk_fwd, allocator(memory));
}

void gsa_layer_bwd(gsa_device& device, const Args& args) {
  expect_float32(args);
  const slot_attention::LayerBwd p = slot_attention::read_layer_bwd(args, GSA_FLOAT32);
  Memory memory;
  slot_attention::compose_layer_bwd(device, args, p, gsa_inputs_fwd, gsa_chunk_bwd, gsa_inputs_bwd,
                                    allocator(memory));
}

}  // namespace gsa::cpu
