// Steps of packed documents, counted, and the line of all walks, cut: on the device, where the lengths are.
#include "sweep_line_sm90.cuh"

#include "../../cuda/launch.cuh"
#include "sweep_sm90.cuh"

namespace gsa::sm90 {
namespace {

constexpr int kCounters = 1024, kCutters = 128;
constexpr int64_t kMostSweeps = 5;  // of an op: dq, and dv and dk of two halves of the slots

struct Count {
  const int32_t* cu_seqlens;
  int64_t T, N;
  int64_t most;
  int32_t *before, *owner;
};

// One block, a running sum over tiles of documents. Offsets that do not ascend could add up to more steps
// than there is memory for; what is past it is not done.
__global__ void __launch_bounds__(kCounters) count_steps_kernel(const Count a) {
  auto* const sums = reinterpret_cast<int64_t*>(block_memory());
  const int thread = threadIdx.x;
  int64_t before = 0;
  for (int64_t base = 0; base < a.N; base += kCounters) {
    const int64_t n = base + thread;
    int64_t mine = 0;
    if (n < a.N) {
      const Rows r = rows_of(a.cu_seqlens, a.T, n);
      mine = (r.end - r.begin + kStep - 1) / kStep;
    }
    sums[thread] = mine;
    __syncthreads();
    for (int offset = 1; offset < kCounters; offset *= 2) {
      const int64_t add = thread >= offset ? sums[thread - offset] : 0;
      __syncthreads();
      sums[thread] += add;
      __syncthreads();
    }
    if (n < a.N) a.before[n] = static_cast<int32_t>(min(before + sums[thread] - mine, a.most));
    before += sums[kCounters - 1];
    __syncthreads();
  }
  if (thread == 0) a.before[a.N] = static_cast<int32_t>(min(before, a.most));
  __syncthreads();
  // A warp for a document.
  for (int64_t n = thread / 32; n < a.N; n += kCounters / 32)
    for (int32_t i = a.before[n] + thread % 32; i < a.before[n + 1]; i += 32)
      a.owner[i] = static_cast<int32_t>(n);
}

struct Cutting {
  Walks walks;
  int clusters;
  int* begins;
  Piece* pieces;
  int* zeroed;
  int64_t flags;
};

// A thread for a walk, and for what else is set by number.
__global__ void __launch_bounds__(kCutters) cut_walks_kernel(const Cutting a) {
  const Walks& w = a.walks;
  const int64_t i = blockIdx.x * int64_t{kCutters} + threadIdx.x, n = i / w.heads, head = i - n * w.heads;
  const int32_t* const before = w.documents.steps_before;
  const int64_t each = (w.T + kStep - 1) / kStep, all = w.heads * (before ? before[w.N] : w.N * each);
  const int64_t clusters = before ? worthwhile(all, a.clusters) : a.clusters;
  if (i < a.flags) a.zeroed[i] = 0;
  if (i <= a.clusters) a.begins[i] = static_cast<int>(interval_begin(i, all, clusters));
  if (n >= w.N) return;
  const int64_t steps = before ? before[n + 1] - before[n] : each;
  if (steps == 0) return;
  const Rows r = rows_of(w.documents.cu_seqlens, w.T, n);
  Piece walk{};
  walk.row = static_cast<int>(r.begin);
  walk.rows = static_cast<int>(r.end - r.begin);
  walk.sequence = static_cast<int>(n);
  walk.head = static_cast<int>(head);
  walk.kv_head = static_cast<int>(head / w.group);
  walk.steps = static_cast<int>(steps);
  cut_walk(walk, (before ? before[n] : n * each) * w.heads + head * steps, all, clusters, a.pieces);
}

constexpr int64_t begins_bytes(int clusters) {
  return (clusters + 1) * static_cast<int64_t>(sizeof(int)) / 32 * 32 + 32;
}

}  // namespace

CountedDocuments::CountedDocuments(gsa_device& device, const slot_attention::Dims& d,
                                   const int32_t* cu_seqlens) {
  if (!cu_seqlens) return;
  const int64_t most = Walks{{cu_seqlens}, d.T, d.N, 1, 1}.steps();
  memory_ = std::make_unique<cuda::Scratch>(device, (d.N + 1 + most) * sizeof(int32_t));
  const auto before = memory_->as<int32_t>(), owner = before + d.N + 1;
  cuda::launch_clusters<1>(device, count_steps_kernel, 1, kCounters, kCounters * sizeof(int64_t),
                           Count{cu_seqlens, d.T, d.N, most, before, owner});
  documents_ = {cu_seqlens, before, owner};
}

Lines::Cut Lines::cut(const Walks& walks, int clusters, int64_t flags) {
  if (!memory_ || clusters != clusters_ || flags > flags_left_) {
    const int64_t all = kMostSweeps * flags, pieces_bytes = walks.steps() * sizeof(Piece);
    memory_ =
        std::make_unique<cuda::Scratch>(device_, begins_bytes(clusters) + pieces_bytes + all * sizeof(int));
    const auto begins = memory_->as<int>();
    const auto pieces = reinterpret_cast<Piece*>(memory_->as<char>() + begins_bytes(clusters));
    table_ = {begins, pieces};
    clusters_ = clusters;
    flags_ = reinterpret_cast<int*>(memory_->as<char>() + begins_bytes(clusters) + pieces_bytes);
    flags_left_ = all;
    const int64_t threads = std::max(std::max(walks.number(), all), int64_t{clusters} + 1);
    cuda::launch_clusters<1>(device_, cut_walks_kernel, (threads + kCutters - 1) / kCutters, kCutters, 0,
                             Cutting{walks, clusters, begins, pieces, flags_, all});
  }
  flags_left_ -= flags;
  return {table_, flags_ + flags_left_};
}

}  // namespace gsa::sm90
