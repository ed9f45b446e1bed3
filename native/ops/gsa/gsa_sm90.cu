// Entry points of gated slot attention on CUDA: which path a call takes. FLASH_GSA_TRACE=1 in the environment
// prints it; FLASH_GSA_SWEEP=1 lets the sweeps take every call whose shape they know, 0 none.
// FLASH_GSA_LAYER=0 composes the layer form everywhere.
#include <cstdio>
#include <cstdlib>
#include <memory>
#include <vector>

#include "../../cuda/kernel.cuh"
#include "fast_sm90.h"
#include "general_sm90.h"
#include "sweeps_sm90.h"

namespace gsa::sm90 {
namespace {

using slot_attention::Dims;

void trace(const char* op, const char* path, const Dims& d, int32_t dtype) {
  static const char* const wanted = std::getenv("FLASH_GSA_TRACE");
  if (!wanted || wanted[0] != '1') return;
  std::fprintf(stderr, "%s: %s path, %s, B %lld T %lld HQ %lld H %lld K %lld V %lld M %lld N %lld\n", op,
               path, dtype_name(dtype), static_cast<long long>(d.B), static_cast<long long>(d.T),
               static_cast<long long>(d.HQ), static_cast<long long>(d.H), static_cast<long long>(d.K),
               static_cast<long long>(d.V), static_cast<long long>(d.M), static_cast<long long>(d.N));
}

// Of calls that the sweeps could take, those for which they are the faster path, unless the environment says.
bool sweep_wanted(const gsa_device& device, const Dims& d, const int32_t* cu_seqlens, bool backward,
                  bool activates = false) {
  static const char* const wanted = std::getenv("FLASH_GSA_SWEEP");
  if (wanted && (wanted[0] == '0' || wanted[0] == '1')) return wanted[0] == '1';
  return sweep_is_faster(device, d, cu_seqlens != nullptr, backward) &&
         (!activates || layer_is_faster(device, d));
}

bool layer_wanted() {
  static const char* const wanted = std::getenv("FLASH_GSA_LAYER");
  return !wanted || wanted[0] != '0';
}

}  // namespace
}  // namespace gsa::sm90

namespace gsa::cuda {

using slot_attention::Dims;
using sm90::sweep_wanted;
using sm90::trace;

void gsa_chunk_fwd(gsa_device& device, const Args& args) {
  const int32_t dtype = args.in(0).dtype;
  const slot_attention::ChunkFwd p = slot_attention::read_chunk_fwd(args, dtype);
  const bool sweep = sm90::sweep_takes(p.dims, dtype) && sweep_wanted(device, p.dims, p.in.cu_seqlens, false),
             fast = sm90::fast_takes(p.dims, dtype);
  trace("gsa_chunk_fwd", sweep ? "sweep" : fast ? "tensor-core" : "general", p.dims, dtype);
  if (sweep) return sm90::sweep_fwd(device, p);
  fast ? sm90::fast_fwd(device, p) : sm90::general_fwd(device, p, dtype);
}

void gsa_chunk_bwd(gsa_device& device, const Args& args) {
  const int32_t dtype = args.in(0).dtype;
  const slot_attention::ChunkBwd p = slot_attention::read_chunk_bwd(args, dtype);
  const bool sweep = sm90::sweep_takes(p.dims, dtype) && sweep_wanted(device, p.dims, p.in.cu_seqlens, true),
             fast = sm90::fast_takes(p.dims, dtype);
  trace("gsa_chunk_bwd", sweep ? "sweep" : fast ? "tensor-core" : "general", p.dims, dtype);
  if (sweep) return sm90::sweep_bwd(device, p);
  fast ? sm90::fast_bwd(device, p) : sm90::general_bwd(device, p, dtype);
}

void gsa_inputs_fwd(gsa_device&, const Args&);
void gsa_inputs_bwd(gsa_device&, const Args&);

// Where the sweeps take the operator and can make its inputs themselves, they do; else these come first.
void gsa_layer_fwd(gsa_device& device, const Args& args) {
  const int32_t dtype = args.in(0).dtype;
  const slot_attention::LayerFwd p = slot_attention::read_layer_fwd(args, dtype);
  const Dims& d = p.chunk.dims;
  const bool sweep = sm90::layer_wanted() && sm90::sweep_takes(d, dtype) && sm90::sweep_takes_layer(p) &&
                     sweep_wanted(device, d, nullptr, false, true);
  trace("gsa_layer_fwd", sweep ? "sweep" : "composed", d, dtype);
  if (sweep) return sm90::sweep_layer_fwd(device, p);
  slot_attention::compose_layer_fwd(device, args, gsa_inputs_fwd, gsa_chunk_fwd);
}

// Where the sweeps take the operator and what they write can be the gradients of the projections, they do;
// else the operator's backward and that of its inputs.
void gsa_layer_bwd(gsa_device& device, const Args& args) {
  const int32_t dtype = args.in(0).dtype;
  const slot_attention::LayerBwd p = slot_attention::read_layer_bwd(args, dtype);
  const Dims& d = p.chunk.dims;
  const bool sweep = sm90::layer_wanted() && sm90::sweep_takes(d, dtype) && sm90::sweep_takes_layer(p) &&
                     sweep_wanted(device, d, p.chunk.in.cu_seqlens, true);
  trace("gsa_layer_bwd", sweep ? "sweep" : "composed", d, dtype);
  if (sweep) return sm90::sweep_layer_bwd(device, p);
  std::vector<std::unique_ptr<Scratch>> memory;
  slot_attention::compose_layer_bwd(device, args, p, gsa_chunk_bwd, gsa_inputs_bwd, [&](uint64_t bytes) {
    return memory.emplace_back(new Scratch(device, bytes))->as<void>();
  });
}

// A step reads every state element once and writes it once, in place or not: the general path is what it
// needs.
void gsa_recurrent(gsa_device& device, const Args& args) {
  const int32_t dtype = args.in(0).dtype;
  const slot_attention::Recurrent p = slot_attention::read_recurrent(args, dtype);
  trace("gsa_recurrent", "general", p.dims, dtype);
  sm90::general_fwd(device, {p.dims, p.in, p.o, nullptr, p.hk_out, p.hv_out}, dtype);
}

}  // namespace gsa::cuda
