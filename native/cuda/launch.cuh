// Launches of kernels: with dynamic shared memory, and of those whose blocks form clusters.
#pragma once

#include <cuda_runtime.h>

#include <cstdint>
#include <map>
#include <mutex>
#include <utility>

#include "device.h"

namespace gsa::cuda {

// `bytes` of dynamic shared memory.
template <class... Arguments, class... Given>
void launch_blocks(gsa_device& device, void (*kernel)(Arguments...), int64_t blocks, int threads, int bytes,
                   const Given&... a) {
  if (bytes > 0) cudaFuncSetAttribute(kernel, cudaFuncAttributeMaxDynamicSharedMemorySize, bytes);
  kernel<<<static_cast<unsigned>(blocks), threads, bytes, device.stream>>>(a...);
}

template <int kCluster, class Arguments>
cudaLaunchConfig_t cluster_config(gsa_device& device, void (*kernel)(Arguments), int64_t clusters,
                                  int threads, int bytes, cudaLaunchAttribute& cluster) {
  cudaFuncSetAttribute(kernel, cudaFuncAttributeMaxDynamicSharedMemorySize, bytes);
  cluster.id = cudaLaunchAttributeClusterDimension;
  cluster.val.clusterDim = {kCluster, 1, 1};
  cudaLaunchConfig_t config{};
  config.gridDim = dim3(static_cast<unsigned>(clusters * kCluster));
  config.blockDim = dim3(static_cast<unsigned>(threads));
  config.dynamicSmemBytes = static_cast<size_t>(bytes);
  config.stream = device.stream;
  config.attrs = &cluster;
  config.numAttrs = 1;  // also for one block: stores between blocks are illegal instructions without it
  return config;
}

// Clusters that the device runs at once, when a multiprocessor has room for one block. The driver is asked
// once a kernel and device: the answer takes as long as a small launch.
template <int kCluster, class Arguments>
int clusters_that_fit(gsa_device& device, void (*kernel)(Arguments), int threads, int bytes) {
  if constexpr (kCluster == 1) return device.multiprocessors;
  static std::mutex mutex;
  static std::map<std::pair<void (*)(Arguments), int>, int> known;
  const std::lock_guard<std::mutex> lock(mutex);
  const auto [place, unknown] = known.try_emplace({kernel, device.index}, 0);
  if (!unknown) return place->second;
  cudaLaunchAttribute attribute{};
  const cudaLaunchConfig_t config = cluster_config<kCluster>(device, kernel, 1, threads, bytes, attribute);
  cudaOccupancyMaxActiveClusters(&place->second, kernel, &config);
  return place->second;
}

template <int kCluster, class Arguments>
void launch_clusters(gsa_device& device, void (*kernel)(Arguments), int64_t clusters, int threads, int bytes,
                     const Arguments& a) {
  cudaLaunchAttribute attribute{};
  const cudaLaunchConfig_t config =
      cluster_config<kCluster>(device, kernel, clusters, threads, bytes, attribute);
  cudaLaunchKernelEx(&config, kernel, a);
}

inline void fill_zero(gsa_device& device, void* memory, int64_t bytes) {
  cudaMemsetAsync(memory, 0, static_cast<size_t>(bytes), device.stream);
}

}  // namespace gsa::cuda
