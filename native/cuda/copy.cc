#include "copy.h"

#include <algorithm>
#include <cstring>
#include <deque>
#include <memory>
#include <mutex>

#include "staging.h"
#include "status.h"

using gsa::cuda::Staging;

namespace {

// A part of a read that found no block: copied into the shared one and from there by a function on the
// stream, which therefore waits meanwhile.
struct Spill {
  gsa_read* read;
  char* dst;
  const void* shared;
  uint64_t bytes;
};

struct Part {
  Staging::Block* block;
  char* dst;
  uint64_t bytes;
};

}  // namespace

struct gsa_read {
  std::deque<Part> parts;
  std::deque<Spill> spills;  // a deque: their addresses must not change
  cudaEvent_t done = nullptr;
  std::mutex mutex;
  bool closed = false;  // dst is the caller's again
};

namespace gsa::cuda {

namespace {

// Calls body(offset, bytes) for stretches of at most kLarge bytes.
template <typename Body>
void for_stretches(uint64_t bytes, Body&& body) {
  for (uint64_t offset = 0; offset < bytes; offset += Staging::kLarge)
    body(offset, std::min(bytes - offset, Staging::kLarge));
}

void upload(gsa_device& device, char* dst, const char* src, uint64_t bytes) {
  bool direct = false;
  for_stretches(bytes, [&](uint64_t offset, uint64_t count) {
    Staging::Block* block = device.staging.take(count);
    if (!block) {  // reads hold all of them: the driver has a way of its own, which waits
      check(cudaMemcpyAsync(dst + offset, src + offset, count, cudaMemcpyHostToDevice, device.stream),
            "copying");
      direct = true;
      return;
    }
    std::memcpy(block->memory, src + offset, count);
    const cudaError_t status =
        cudaMemcpyAsync(dst + offset, block->memory, count, cudaMemcpyHostToDevice, device.stream);
    device.staging.give_back_after(block, device.stream);
    check(status, "copying");
  });
  if (direct) check(cudaStreamSynchronize(device.stream), "copying");
}

// Blocks of a download that are under way at once: while one is emptied the bus fills the next.
constexpr size_t kAhead = 4;

void download(gsa_device& device, char* dst, const char* src, uint64_t bytes) {
  std::deque<Part> ahead;
  const auto collect_first = [&] {
    const Part& part = ahead.front();
    check(cudaEventSynchronize(part.block->event), "copying");
    std::memcpy(part.dst, part.block->memory, part.bytes);
    device.staging.give_back(part.block);
    ahead.pop_front();
  };
  try {
    for_stretches(bytes, [&](uint64_t offset, uint64_t count) {
      if (ahead.size() == kAhead) collect_first();
      Staging::Block* block = device.staging.take(count);
      if (!block) {
        check(cudaMemcpyAsync(dst + offset, src + offset, count, cudaMemcpyDeviceToHost, device.stream),
              "copying");
        return check(cudaStreamSynchronize(device.stream), "copying");
      }
      ahead.push_back({block, dst + offset, count});
      check(cudaMemcpyAsync(block->memory, src + offset, count, cudaMemcpyDeviceToHost, device.stream),
            "copying");
      check(cudaEventRecord(block->event, device.stream), "recording an event");
    });
    while (!ahead.empty()) collect_first();
  } catch (...) {
    cudaStreamSynchronize(device.stream);  // nothing may write into a block that is given back
    for (const Part& part : ahead) device.staging.give_back(part.block);
    throw;
  }
}

void empty_shared_block(void* data) {
  const auto* spill = static_cast<const Spill*>(data);
  std::lock_guard<std::mutex> lock(spill->read->mutex);
  if (!spill->read->closed) std::memcpy(spill->dst, spill->shared, spill->bytes);
}

void start_stretch(gsa_device& device, gsa_read& read, char* dst, const char* src, uint64_t bytes) {
  if (Staging::Block* block = device.staging.try_take(bytes)) {
    read.parts.push_back({block, dst, bytes});
    return check(cudaMemcpyAsync(block->memory, src, bytes, cudaMemcpyDeviceToHost, device.stream),
                 "copying");
  }
  // Whether to wait for a block is not this thread's to decide: the one that would free it may be waiting for
  // this thread. So the stream does the work.
  void* shared = device.staging.shared_block();
  read.spills.push_back({&read, dst, shared, bytes});
  std::lock_guard<std::mutex> lock(device.spill_mutex);  // two threads' copies must not mix
  check(cudaMemcpyAsync(shared, src, bytes, cudaMemcpyDeviceToHost, device.stream), "copying");
  check(cudaLaunchHostFunc(device.stream, empty_shared_block, &read.spills.back()), "copying");
}

// The end of a read whose data has arrived, or never will.
void close(gsa_device& device, std::unique_ptr<gsa_read> read, bool arrived) {
  {
    std::lock_guard<std::mutex> lock(read->mutex);
    read->closed = true;
  }
  for (const Part& part : read->parts) {
    if (arrived) std::memcpy(part.dst, part.block->memory, part.bytes);
    device.staging.give_back(part.block);
  }
  if (read->done) cudaEventDestroy(read->done);
  // After an error it is not known whether the stream still comes to the spills: they stay for it.
  if (!arrived && !read->spills.empty()) read.release();
}

}  // namespace

void copy(gsa_device& device, void* dst, const void* src, uint64_t bytes, gsa_copy_kind kind) {
  select(device);
  auto* to = static_cast<char*>(dst);
  const auto* from = static_cast<const char*>(src);
  if (kind == GSA_HOST_TO_DEVICE) return upload(device, to, from, bytes);
  if (kind == GSA_DEVICE_TO_HOST) return download(device, to, from, bytes);
  check(cudaMemcpyAsync(dst, src, bytes, cudaMemcpyDeviceToDevice, device.stream), "copying");
}

gsa_read* start_read(gsa_device& device, void* dst, const void* src, uint64_t bytes) {
  select(device);
  auto read = std::make_unique<gsa_read>();
  try {
    check(cudaEventCreateWithFlags(&read->done, cudaEventBlockingSync | cudaEventDisableTiming),
          "creating an event");
    for_stretches(bytes, [&](uint64_t offset, uint64_t count) {
      start_stretch(device, *read, static_cast<char*>(dst) + offset, static_cast<const char*>(src) + offset,
                    count);
    });
    check(cudaEventRecord(read->done, device.stream), "recording an event");
  } catch (...) {
    cudaStreamSynchronize(device.stream);  // nothing may write into a block that is given back
    close(device, std::move(read), false);
    throw;
  }
  return read.release();
}

void end_read(gsa_device& device, gsa_read* read) {
  select(device);
  const cudaError_t status = cudaEventSynchronize(read->done);
  close(device, std::unique_ptr<gsa_read>(read), status == cudaSuccess);
  check(status, "copying");
}

}  // namespace gsa::cuda
