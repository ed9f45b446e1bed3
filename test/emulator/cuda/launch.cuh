// In place of native/cuda/launch.cuh.
#pragma once

#include "../../emulator.h"
#include "device.h"

namespace gsa::cuda {

// One block after another: memory that is `static` is shared memory.
template <class... Arguments, class... Given>
void launch_blocks(gsa_device&, void (*kernel)(Arguments...), int64_t blocks, int threads, int bytes,
                   const Given&... a) {
  emulator::blocks_launched = {static_cast<unsigned>(blocks), 1, 1};
  for (int64_t block = 0; block < blocks; ++block)
    emulator::launch(1, threads, 1, bytes, [&] { kernel(a...); }, static_cast<unsigned>(block));
}

template <int kCluster, class Arguments>
int clusters_that_fit(gsa_device&, void (*)(Arguments), int, int) {
  return emulator::clusters_of_device;
}
template <int kCluster, class Arguments>
void launch_clusters(gsa_device&, void (*kernel)(Arguments), int64_t clusters, int threads, int bytes,
                     const Arguments& a) {
  emulator::launch(static_cast<int>(clusters) * kCluster, threads, kCluster, bytes, [&] { kernel(a); });
}
inline void fill_zero(gsa_device&, void* memory, int64_t bytes) { std::memset(memory, 0, bytes); }

}  // namespace gsa::cuda
