// Entry points of gated slot attention on CUDA: which path a call takes. FLASH_GSA_TRACE=1 in the environment
// prints it; FLASH_GSA_SWEEP=1 lets the sweeps take every call whose shape they know, 0 none;
// FLASH_GSA_EXACT=1 makes all calls of the tensor-core path exact, 0 none; FLASH_GSA_LAYER=0 composes the
// layer form everywhere.
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
using slot_attention::Inputs;

void trace(const char* op, const char* path, const Dims& d, int32_t dtype) {
  static const char* const wanted = std::getenv("FLASH_GSA_TRACE");
  if (!wanted || wanted[0] != '1') return;
  std::fprintf(stderr, "%s: %s path, %s, B %lld T %lld HQ %lld H %lld K %lld V %lld M %lld N %lld\n", op,
               path, dtype_name(dtype), static_cast<long long>(d.B), static_cast<long long>(d.T),
               static_cast<long long>(d.HQ), static_cast<long long>(d.H), static_cast<long long>(d.K),
               static_cast<long long>(d.V), static_cast<long long>(d.M), static_cast<long long>(d.N));
}

// What the environment says, if it does.
bool said(const char* wanted, bool otherwise) {
  return wanted && (wanted[0] == '0' || wanted[0] == '1') ? wanted[0] == '1' : otherwise;
}

bool sweep_wanted(bool faster) {
  static const char* const wanted = std::getenv("FLASH_GSA_SWEEP");
  return said(wanted, faster);
}

enum class Path { kSweep, kFast, kExact, kGeneral };

// Whether tensors lie where the fast paths can read and write 16 bytes at once; views of others may not.
bool lie_well(const Inputs& in, std::initializer_list<const void*> others) {
  return cuda::aligned({in.q, in.k, in.v, in.s, in.g, in.hk0, in.hv0}) && cuda::aligned(others);
}

Path choose(const gsa_device& device, const char* op, const Dims& d, const int32_t* cu_seqlens, int32_t dtype,
            bool well, bool backward) {
  static const char* const exact = std::getenv("FLASH_GSA_EXACT");
  const bool packed = cu_seqlens != nullptr;
  Path path = Path::kGeneral;
  if (well && sweep_takes(d, dtype) && sweep_wanted(sweep_is_faster(device, d, packed, backward)))
    path = Path::kSweep;
  else if (well && fast_takes(d, dtype))
    path = said(exact, exact_costs_little(device, d, packed)) ? Path::kExact : Path::kFast;
  static const char* const names[] = {"sweep", "tensor-core", "exact tensor-core", "general"};
  trace(op, names[static_cast<int>(path)], d, dtype);
  return path;
}

// Whether the sweeps take a layer with its activations: it is `possible`, and they take the operator. A
// backward is right whatever its forward did, so the environment may say something else by then.
bool layer_wanted(const gsa_device& device, const char* op, const Dims& d, int32_t dtype, bool possible,
                  bool backward, const int32_t* cu_seqlens) {
  static const char* const wanted = std::getenv("FLASH_GSA_LAYER");
  const bool sweep = said(wanted, true) && sweep_takes(d, dtype) && possible &&
                     sweep_wanted(sweep_is_faster(device, d, cu_seqlens != nullptr, backward));
  trace(op, sweep ? "sweep" : "composed", d, dtype);
  return sweep;
}

}  // namespace
}  // namespace gsa::sm90

namespace gsa::cuda {

using slot_attention::Dims;
using sm90::Path;

void gsa_chunk_fwd(gsa_device& device, const Args& args) {
  const int32_t dtype = args.in(0).dtype;
  const slot_attention::ChunkFwd p = slot_attention::read_chunk_fwd(args, dtype);
  const Path path = sm90::choose(device, "gsa_chunk_fwd", p.dims, p.in.cu_seqlens, dtype,
                                 sm90::lie_well(p.in, {p.o, p.ok, p.hkT, p.hvT}), false);
  if (path == Path::kSweep) return sm90::sweep_fwd(device, p);
  if (path == Path::kGeneral) return sm90::general_fwd(device, p, dtype);
  sm90::fast_fwd(device, p, path == Path::kExact);
}

void gsa_chunk_bwd(gsa_device& device, const Args& args) {
  const int32_t dtype = args.in(0).dtype;
  const slot_attention::ChunkBwd p = slot_attention::read_chunk_bwd(args, dtype);
  const Path path = sm90::choose(
      device, "gsa_chunk_bwd", p.dims, p.in.cu_seqlens, dtype,
      sm90::lie_well(p.in, {p.ok, p.d_o, p.dhkT, p.dhvT, p.dq, p.dk, p.dv, p.ds, p.dg, p.dhk0, p.dhv0}),
      true);
  if (path == Path::kSweep) return sm90::sweep_bwd(device, p);
  if (path == Path::kGeneral) return sm90::general_bwd(device, p, dtype);
  sm90::fast_bwd(device, p, path == Path::kExact);
}

void gsa_inputs_fwd(gsa_device&, const Args&);
void gsa_inputs_bwd(gsa_device&, const Args&);

namespace {

// For the time of one op.
using Memory = std::vector<std::unique_ptr<Scratch>>;
auto allocator(gsa_device& device, Memory& memory) {
  return [&](uint64_t bytes) { return memory.emplace_back(new Scratch(device, bytes))->as<void>(); };
}

}  // namespace

// Where the sweeps take the operator and can make its inputs themselves, they do; else these come first. Who
// wants q, k and v gets the latter.
void gsa_layer_fwd(gsa_device& device, const Args& args) {
  const int32_t dtype = args.in(0).dtype;
  const slot_attention::LayerFwd p = slot_attention::read_layer_fwd(args, dtype);
  const Dims& d = p.chunk.dims;
  const auto& chunk = p.chunk;
  const bool well = sm90::lie_well(chunk.in, {chunk.o, chunk.ok, chunk.hkT, chunk.hvT});
  if (sm90::layer_wanted(device, "gsa_layer_fwd", d, dtype, well && sm90::sweep_takes_layer(p), false,
                         chunk.in.cu_seqlens))
    return sm90::sweep_layer_fwd(device, p);
  Memory memory;
  slot_attention::compose_layer_fwd(device, args, gsa_inputs_fwd, gsa_chunk_fwd, allocator(device, memory));
}

// Where the sweeps take the operator and what they write can be the gradients of the projections, they do;
// else the operator's backward and that of its inputs.
void gsa_layer_bwd(gsa_device& device, const Args& args) {
  const int32_t dtype = args.in(0).dtype;
  const slot_attention::LayerBwd p = slot_attention::read_layer_bwd(args, dtype);
  const Dims& d = p.chunk.dims;
  const auto& chunk = p.chunk;
  const bool well =
      sm90::lie_well(chunk.in, {chunk.ok, chunk.d_o, chunk.dhkT, chunk.dhvT, chunk.dhk0, chunk.dhv0});
  if (sm90::layer_wanted(device, "gsa_layer_bwd", d, dtype, well && sm90::sweep_takes_layer(p), true,
                         chunk.in.cu_seqlens))
    return sm90::sweep_layer_bwd(device, p);
  Memory memory;
  slot_attention::compose_layer_bwd(device, args, p, gsa_inputs_fwd, gsa_chunk_bwd, gsa_inputs_bwd,
                                    allocator(device, memory));
}

// A step reads every state element once and writes it once, in place or not: the general path is what it
// needs.
void gsa_recurrent(gsa_device& device, const Args& args) {
  const int32_t dtype = args.in(0).dtype;
  const slot_attention::Recurrent p = slot_attention::read_recurrent(args, dtype);
  sm90::trace("gsa_recurrent", "general", p.dims, dtype);
  sm90::general_fwd(device, {p.dims, p.in, p.o, nullptr, p.hk_out, p.hv_out}, dtype);
}

}  // namespace gsa::cuda
