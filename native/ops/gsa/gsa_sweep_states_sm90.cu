#include "sweep_states_sm90.cuh"

namespace gsa::sm90 {

struct Conversion {
  UserState in, out;
  const int32_t* cu_seqlens;
  int64_t T, H, M;
  int cluster;
  Halves halves;
  int group;      // walks that share a state: the first starts with it, and its end is the sum of theirs
  float* states;  // [walk, half, block of the cluster, in and out]
};

namespace {

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
  const int blocks = a.halves.number * a.cluster, rank = blockIdx.x % blocks;
  const int64_t block = blockIdx.x / blocks;  // kStore: of a state, else of a walk
  const int64_t state = kStore ? block : block / a.group, offset = state * user.width * a.M;
  const int64_t next_walk = (a.in.width + a.out.width) * kSlots * a.halves.number;
  const int slice = static_cast<int>(user.width / a.cluster), first = rank % a.cluster * slice,
            slots_before = (a.halves.first + rank / a.cluster) * kSlots;
  const Rows rows = rows_of(a.cu_seqlens, a.T, state / a.H);
  for (int i = threadIdx.x; i < slice * kSlots; i += kRole) {
    const int channel = user.stride_channel == 1 ? i % slice : i / kSlots,
              slot = user.stride_channel == 1 ? i / slice : i % kSlots;
    const int64_t at = offset + int64_t{first + channel} * user.stride_channel +
                       int64_t{slots_before + slot} * user.stride_slot;
    float* x = states + (kOut ? place_out(channel, slot) : place_in(channel, slot));
    const auto start = [&] { return user.start ? user.start[at] : 0.0f; };
    if constexpr (kStore) {
      if (rows.begin == rows.end) {  // No walk has left anything.
        user.end[at] = start();
        continue;
      }
      float sum = x[0];
      for (int i = 1; i < a.group; ++i) sum += x[i * next_walk];
      user.end[at] = sum;
    } else {
      x[0] = block % a.group == 0 ? start() : 0.0f;
    }
  }
}

// A block for a block of the sweep; of the walks that share a state, one to store it.
template <bool kStore>
__global__ void __launch_bounds__(kRole) convert_states_kernel(const Conversion a) {
  const int64_t in = a.in.width / a.cluster * kSlots, out = a.out.width / a.cluster * kSlots;
  const int blocks = a.halves.number * a.cluster;
  const int64_t first = kStore ? blockIdx.x / blocks * a.group * blocks + blockIdx.x % blocks : blockIdx.x;
  float* states = a.states + first * (in + out);
  if (!kStore || a.in.end) convert<kStore, false>(a.in, a, states);
  if (!kStore || a.out.end) convert<kStore, true>(a.out, a, states + in);
}

}  // namespace

WalkStates::WalkStates(gsa_device& device, const slot_attention::Dims& d, const int32_t* cu_seqlens,
                       int cluster, Halves halves, int group, const UserState& in, const UserState& out)
    : device_(device),
      d_(d),
      cu_seqlens_(cu_seqlens),
      cluster_(cluster),
      halves_(halves),
      group_(group),
      in_(in),
      out_(out) {
  const int64_t walks = d.N * d.H * group;
  const int64_t bytes =
      walks * (in.width + out.width) * kSlots * halves.number * static_cast<int64_t>(sizeof(float));
  if (bytes == 0) return;
  if (in.end || out.end) {
    end_ = std::make_unique<cuda::Scratch>(device, bytes);
    ends_.end = end_->as<float>();
  }
  if (!in.start && !out.start) return;
  start_ = std::make_unique<cuda::Scratch>(device, bytes);
  ends_.start = start_->as<float>();
  cuda::launch_clusters<1>(device, convert_states_kernel<false>, walks * halves.number * cluster, kRole, 0,
                           conversion(start_->as<float>()));
}

Conversion WalkStates::conversion(float* states) const {
  return {in_, out_, cu_seqlens_, d_.T, d_.H, d_.M, cluster_, halves_, group_, states};
}

void WalkStates::store() const {
  if (!ends_.end) return;
  cuda::launch_clusters<1>(device_, convert_states_kernel<true>, d_.N * d_.H * halves_.number * cluster_,
                           kRole, 0, conversion(ends_.end));
}

}  // namespace gsa::sm90
