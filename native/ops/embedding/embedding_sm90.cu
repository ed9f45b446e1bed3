// Embedding on CUDA. The backward is deterministic without sorting: the tokens of each id are chained in
// order, and one block an id adds their rows. The host cannot see the ids without waiting, so an id outside
// the table gives a row of NaN, which no loss survives, and gets no gradient.
#include "../../cuda/kernel.cuh"
#include "params.h"

namespace gsa::cuda {

namespace {

constexpr int kThreads = 256;

template <typename T>
__global__ void __launch_bounds__(kThreads)
    gather_kernel(const T* __restrict__ weight, const int32_t* __restrict__ ids, T* __restrict__ y,
                  int64_t vocabulary, int64_t width) {
  const int32_t id = ids[blockIdx.x];
  const bool inside = id >= 0 && id < vocabulary;
  T* row = y + static_cast<int64_t>(blockIdx.x) * width;
  for (int64_t d = threadIdx.x; d < width; d += kThreads)
    row[d] = inside ? weight[id * width + d] : from_float<T>(nanf(""));
}

constexpr int kTile = 2048;  // tokens that a block looks at between two barriers

// first[id]: the first token with that id, next[i]: the one after token i with the same id; -1 ends a chain.
// One thread an id walks all tokens, four at a time from shared memory, where a warp reads the same ones.
__global__ void __launch_bounds__(kThreads)
    chain_kernel(const int32_t* __restrict__ ids, int32_t* __restrict__ next, int32_t* __restrict__ first,
                 int64_t n, int64_t vocabulary) {
  __shared__ int4 tile[kTile / 4];
  const int64_t id = blockIdx.x * static_cast<int64_t>(kThreads) + threadIdx.x;
  int32_t head = -1;
  const auto visit = [&](int32_t token_id, int64_t token) {
    if (token_id != id) return;
    next[token] = head;
    head = static_cast<int32_t>(token);
  };
  // Backwards, so that the chain starts at the first token. Past the end no id fits.
  for (int64_t start = (n - 1) / kTile * kTile; start >= 0; start -= kTile) {
    __syncthreads();
    for (int i = threadIdx.x; i < kTile; i += kThreads)
      reinterpret_cast<int32_t*>(tile)[i] = start + i < n ? ids[start + i] : -1;
    __syncthreads();
#pragma unroll 8
    for (int i = kTile / 4 - 1; i >= 0; --i) {
      const int4 four = tile[i];
      const int64_t token = start + 4 * i;
      visit(four.w, token + 3);
      visit(four.z, token + 2);
      visit(four.y, token + 1);
      visit(four.x, token);
    }
  }
  if (id < vocabulary) first[id] = head;
}

template <typename T>
__global__ void __launch_bounds__(kThreads)
    scatter_kernel(const T* __restrict__ dy, const int32_t* __restrict__ next,
                   const int32_t* __restrict__ first, T* __restrict__ dweight, int64_t width) {
  const int64_t id = blockIdx.x;
  for (int64_t d = threadIdx.x; d < width; d += kThreads) {
    float sum = 0;
    for (int32_t i = first[id]; i >= 0; i = next[i]) sum += to_float(dy[i * width + d]);
    dweight[id * width + d] = from_float<T>(sum);
  }
}

}  // namespace

void embedding_fwd(gsa_device& device, const Args& args) {
  const lookup::Embedding p = lookup::read_embedding_fwd(args);
  if (p.n == 0 || p.width == 0) return;
  with_float_type(p.dtype, "weight", [&](auto type) {
    using T = decltype(type);
    gather_kernel<T><<<static_cast<unsigned>(p.n), kThreads, 0, device.stream>>>(
        static_cast<const T*>(args.in(0).data), p.ids, static_cast<T*>(args.out(0).data), p.vocabulary,
        p.width);
  });
}

void embedding_bwd(gsa_device& device, const Args& args) {
  const lookup::Embedding p = lookup::read_embedding_bwd(args);
  if (p.vocabulary == 0 || p.width == 0) return;
  const Scratch chains(device, static_cast<uint64_t>(p.n + p.vocabulary) * sizeof(int32_t));
  int32_t* next = chains.as<int32_t>();
  int32_t* first = next + p.n;
  const unsigned blocks = static_cast<unsigned>((p.vocabulary + kThreads - 1) / kThreads);
  chain_kernel<<<blocks, kThreads, 0, device.stream>>>(p.ids, next, first, p.n, p.vocabulary);
  with_float_type(p.dtype, "dy", [&](auto type) {
    using T = decltype(type);
    scatter_kernel<T><<<static_cast<unsigned>(p.vocabulary), kThreads, 0, device.stream>>>(
        static_cast<const T*>(args.in(0).data), next, first, static_cast<T*>(args.out(0).data), p.width);
  });
}

}  // namespace gsa::cuda
