#include "memory.h"

#include <algorithm>
#include <vector>

#include "status.h"

namespace gsa::cuda {

namespace {

using debug_memory::kZone;

double mebibytes(uint64_t bytes) { return static_cast<double>(bytes) / (1 << 20); }

[[noreturn]] void out_of_memory(const gsa_device& device, uint64_t bytes) {
  cudaGetLastError();
  size_t free_bytes = 0, total_bytes = 0;
  check(cudaMemGetInfo(&free_bytes, &total_bytes), "reading the device's memory");
  fail(GSA_OUT_OF_MEMORY,
       "Expected room for %.1f MiB on cuda:%d but %.1f MiB are in use here and %.1f of %.1f MiB are free; "
       "dispose tensors or make the work smaller",
       mebibytes(bytes), device.index, mebibytes(device.stats.current_bytes), mebibytes(free_bytes),
       mebibytes(total_bytes));
}

// nullptr: there is no memory.
void* block_of(gsa_device& device, uint64_t bytes) {
  if (device.heap) return device.heap->take(bytes);
  select(device);
  void* ptr = nullptr;
  const cudaError_t status = cudaMallocAsync(&ptr, bytes, device.stream);
  if (status == cudaSuccess) return ptr;
  if (status != cudaErrorMemoryAllocation) check(status, "allocating memory");
  cudaGetLastError();  // after a failure alone: a launch that was refused before is still to be told
  return nullptr;
}

void give_block_back(gsa_device& device, void* ptr) noexcept {
  if (device.heap) return device.heap->give_back(ptr);
  // There is nobody to tell: a device that refuses to free is lost, and the next call says so.
  if (!device.lost && cudaSetDevice(device.index) == cudaSuccess) cudaFreeAsync(ptr, device.stream);
}

void* take(gsa_device& device, uint64_t bytes) {
  std::lock_guard<std::mutex> lock(device.mutex);
  if (bytes > device.memory_limit || device.stats.current_bytes > device.memory_limit - bytes)
    fail(GSA_OUT_OF_MEMORY,
         "Expected room for %.1f MiB but %.1f of %.1f MiB are in use; dispose tensors, make the work "
         "smaller, or "
         "raise the \"memory_limit\" option",
         mebibytes(bytes), mebibytes(device.stats.current_bytes), mebibytes(device.memory_limit));
  void* ptr = block_of(device, bytes);
  if (!ptr) {
    // What was freed may still be cached in pieces of other sizes: give it back and try once more.
    select(device);
    cudaStreamSynchronize(device.stream);
    trim(device, 0);
    ptr = block_of(device, bytes);
  }
  if (!ptr) out_of_memory(device, bytes);
  device.stats.current_bytes += bytes;
  device.stats.peak_bytes = std::max(device.stats.peak_bytes, device.stats.current_bytes);
  ++device.stats.allocations;
  return ptr;
}

void give_back(gsa_device& device, void* ptr, uint64_t bytes) noexcept {
  std::lock_guard<std::mutex> lock(device.mutex);
  give_block_back(device, ptr);
  device.stats.current_bytes -= bytes;
}

void set_bytes(gsa_device& device, void* data, int value, uint64_t bytes) {
  check(cudaMemsetAsync(data, value, bytes, device.stream), "filling memory for debugging");
}

void mend(gsa_device& device, char* data, uint64_t bytes) {
  set_bytes(device, data - kZone, debug_memory::kZoneByte, kZone);
  set_bytes(device, data + bytes, debug_memory::kZoneByte, kZone);
}

// Reads the red zones of the blocks back, and says what is wrong with them.
void inspect(gsa_device& device, const std::vector<debug_memory::Block>& blocks, const char* when) {
  std::vector<unsigned char> zones(blocks.size() * 2 * kZone);
  unsigned char* next = zones.data();
  for (const debug_memory::Block& block : blocks)
    for (const char* zone :
         {static_cast<const char*>(block.data) - kZone, static_cast<const char*>(block.data) + block.bytes}) {
      check(cudaMemcpyAsync(next, zone, kZone, cudaMemcpyDeviceToHost, device.stream), "reading red zones");
      next += kZone;
    }
  check(cudaStreamSynchronize(device.stream), "reading red zones");
  next = zones.data();
  for (const debug_memory::Block& block : blocks) {
    if (!device.ledger->inspect(block, {next, next + kZone}, when)) mend(device, block.data, block.bytes);
    next += 2 * kZone;
  }
}

}  // namespace

void* allocate(gsa_device& device, uint64_t bytes) {
  if (!device.ledger) return take(device, bytes);
  select(device);
  device.ledger->raise();
  char* data =
      static_cast<char*>(take(device, bytes > UINT64_MAX - 2 * kZone ? bytes : bytes + 2 * kZone)) + kZone;
  set_bytes(device, data, debug_memory::kPoison, bytes);
  mend(device, data, bytes);
  device.ledger->add(data, bytes);
  return data;
}

void release(gsa_device& device, void* ptr, uint64_t bytes) noexcept {
  if (!ptr) return;
  if (!device.ledger) return give_back(device, ptr, bytes);
  char* data = static_cast<char*>(ptr);
  // A failure of CUDA in here shows in the next call that can tell of it.
  gsa_error ignored;
  guard(&ignored, [&] {
    const debug_memory::Block block = device.ledger->find(ptr);
    device.ledger->remove(data);
    if (device.lost) return;
    select(device);
    inspect(device, {block}, "when it was given back");
    set_bytes(device, data, debug_memory::kPoison, bytes);
  });
  give_back(device, data - kZone, bytes + 2 * kZone);
}

void inspect(gsa_device& device, const Args& args) {
  std::vector<debug_memory::Block> blocks;
  args.for_each([&](const gsa_tensor& tensor) {
    const debug_memory::Block block = device.ledger->find(tensor.data);
    if (block.data) blocks.push_back(block);
  });
  inspect(device, blocks, "after an op on it");
  device.ledger->raise();
}

void overrun(gsa_device& device, uint64_t bytes) {
  const debug_memory::Block block = device.ledger->find_size(bytes);
  if (!block.data)
    fail(GSA_INVALID_ARGUMENT, "Expected the size of a live block but received %llu bytes",
         static_cast<unsigned long long>(bytes));
  set_bytes(device, block.data + bytes + 3, 0, 1);
}

void* take_uncounted(gsa_device& device, uint64_t bytes) {
  std::lock_guard<std::mutex> lock(device.mutex);
  return block_of(device, bytes);
}

void give_uncounted_back(gsa_device& device, void* ptr) noexcept {
  std::lock_guard<std::mutex> lock(device.mutex);
  if (ptr) give_block_back(device, ptr);
}

void trim(gsa_device& device, uint64_t keep) {
  if (device.heap) device.heap->trim(keep);
  // Nothing is to be done where the pool refuses: it then keeps more than was asked for.
  cudaMemPoolTrimTo(device.pool, keep);
}

gsa_memory_stats memory_stats(gsa_device& device, bool reset_peak) {
  select(device);
  uint64_t reserved = 0;
  check(cudaMemPoolGetAttribute(device.pool, cudaMemPoolAttrReservedMemCurrent, &reserved),
        "reading the memory pool");
  std::lock_guard<std::mutex> lock(device.mutex);
  if (device.heap) reserved += device.heap->page_bytes_held();
  gsa_memory_stats stats = device.stats;
  stats.cached_bytes = reserved - std::min(reserved, stats.current_bytes);
  if (reset_peak) device.stats.peak_bytes = device.stats.current_bytes;
  return stats;
}

}  // namespace gsa::cuda
