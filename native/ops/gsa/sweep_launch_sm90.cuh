// Launches of the sweeps.
#pragma once

#include "sweep_segments_sm90.cuh"

namespace gsa::sm90 {

// As many clusters as fit the device and the line gives work to. What the arguments say of them is filled in,
// as is `pass`, whose kernels run before where walks are cut into pieces that follow one another. Single
// blocks are launched in pairs (cluster.cuh), one of which may have nothing to do. `segments`: those kernels
// know the sweep's slots.
template <bool kReverse, int kCluster, int kThreads = kSweepThreads, class Arguments>
void launch_sweep(gsa_device& device, Lines& lines, void (*kernel)(Arguments), int bytes,
                  int64_t state_elements, bool segments, Arguments& a, SegmentPass& pass) {
  constexpr int kLaunched = std::max(kCluster, 2), kEach = kLaunched / kCluster;
  const int fit = kEach * cuda::clusters_that_fit<kLaunched>(device, kernel, kThreads, bytes);
  const Cuts cuts = cut_line(pass.walks, fit, segments);
  const int64_t blocks = static_cast<int64_t>(cuts.clusters) * kCluster,
                flags = cuts.segments ? 0 : blocks * 2;
  const cuda::Scratch memory(device, blocks * state_elements * sizeof(float));
  a.clusters = cuts.clusters;
  const Lines::Cut line = lines.cut(pass.walks, cuts.clusters, flags);
  a.line = line.table;
  a.hand_over = {memory.as<float>(), flags ? line.flags : nullptr};
  if (cuts.segments) {
    pass.line = a.line;
    pass.clusters = cuts.clusters;
    pass.states = a.hand_over.states;
    launch_segments<kReverse>(device, pass, kCluster);
  }
  cuda::launch_clusters<kLaunched>(device, kernel, (a.clusters + kEach - 1) / kEach, kThreads, bytes, a);
}

}  // namespace gsa::sm90
