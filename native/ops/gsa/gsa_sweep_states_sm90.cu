#include "sweep_states_sm90.cuh"

namespace gsa::sm90 {
namespace {

struct Conversion {
  UserState in, out;
  const int32_t* cu_seqlens;
  int64_t T, H;
  int cluster;
  float* states;  // [walk, block of the cluster, in and out]
};

// Where element (channel, slot) of a block's slice lies: 16 bytes a thread side by side, as hand_over stores
// them (InState and OutState say which thread has what).
__device__ __forceinline__ int place_in(int channel, int slot) {
  const int thread = slot / 16 * 32 + slot % 8 * 4 + channel % 8 / 2;
  return (channel / 8 * kRole + thread) * 4 + slot % 16 / 8 * 2 + channel % 2;
}
__device__ __forceinline__ int place_out(int channel, int slot) {
  const int thread = channel % 64 / 16 * 32 + channel % 8 * 4 + slot % 8 / 2;
  return ((channel / 64 * (kSlots / 8) + slot / 8) * kRole + thread) * 4 + channel % 16 / 8 * 2 + slot % 2;
}

template <bool kStore, bool kOut>
__device__ __forceinline__ void convert(const UserState& user, const Conversion& a, float* states) {
  const int64_t walk = blockIdx.x / a.cluster, offset = walk * user.width * kSlots;
  const int slice = static_cast<int>(user.width / a.cluster), first = blockIdx.x % a.cluster * slice;
  const Rows rows = rows_of(a.cu_seqlens, a.T, walk / a.H);
  for (int i = threadIdx.x; i < slice * kSlots; i += kRole) {
    const int channel = user.stride_channel == 1 ? i % slice : i / kSlots,
              slot = user.stride_channel == 1 ? i / slice : i % kSlots;
    const int64_t at =
        offset + int64_t{first + channel} * user.stride_channel + int64_t{slot} * user.stride_slot;
    float& x = states[kOut ? place_out(channel, slot) : place_in(channel, slot)];
    const auto start = [&] { return user.start ? user.start[at] : 0.0f; };
    if constexpr (kStore)
      user.end[at] = rows.begin == rows.end ? start() : x;
    else
      x = start();
  }
}

// A block for a block of the sweep.
template <bool kStore>
__global__ void __launch_bounds__(kRole) convert_states_kernel(const Conversion a) {
  const int64_t in = a.in.width / a.cluster * kSlots, out = a.out.width / a.cluster * kSlots;
  float* states = a.states + blockIdx.x * (in + out);
  if (!kStore || a.in.end) convert<kStore, false>(a.in, a, states);
  if (!kStore || a.out.end) convert<kStore, true>(a.out, a, states + in);
}

}  // namespace

WalkStates::WalkStates(gsa_device& device, const slot_attention::Dims& d, const int32_t* cu_seqlens,
                       int cluster, const UserState& in, const UserState& out)
    : device_(device), d_(d), cu_seqlens_(cu_seqlens), cluster_(cluster), in_(in), out_(out) {
  const int64_t bytes = d.N * d.H * (in.width + out.width) * kSlots * static_cast<int64_t>(sizeof(float));
  if (bytes == 0) return;
  if (in.end || out.end) {
    end_ = std::make_unique<cuda::Scratch>(device, bytes);
    ends_.end = end_->as<float>();
  }
  if (!in.start && !out.start) return;
  start_ = std::make_unique<cuda::Scratch>(device, bytes);
  ends_.start = start_->as<float>();
  cuda::launch_clusters<1>(device, convert_states_kernel<false>, d.N * d.H * cluster, kRole, 0,
                           Conversion{in, out, cu_seqlens, d.T, d.H, cluster, start_->as<float>()});
}

void WalkStates::store() const {
  if (!ends_.end) return;
  cuda::launch_clusters<1>(device_, convert_states_kernel<true>, d_.N * d_.H * cluster_, kRole, 0,
                           Conversion{in_, out_, cu_seqlens_, d_.T, d_.H, cluster_, ends_.end});
}

}  // namespace gsa::sm90
