// The threads behind parallel_for. Everything else uses parallel.h.
#pragma once

#include <atomic>
#include <condition_variable>
#include <cstdint>
#include <exception>
#include <memory>
#include <mutex>
#include <thread>
#include <vector>

#include "parallel.h"

namespace gsa::cpu {

// A job is split into more chunks than threads. Every thread owns a contiguous run of chunks (so that an op
// finds in its cache what the op before left there) and takes from the others when its own are done (so that
// a core that another process holds does not hold up the job).
//
// Workers join a job while it is open and the caller waits only for those that joined: a worker that the
// system wakes late costs nothing. One atomic word carries epoch, open flag and the number of workers inside.
class Pool {
 public:
  // Never destroyed: at exit the system ends the sleeping threads, and a destructor that joined them could
  // hang when exit() is called on a thread that is inside a job.
  static Pool& get();

  void run(int64_t n, int64_t grain, RangeTask task);
  int size() const { return threads_.load(std::memory_order_relaxed); }
  void resize(int threads);

 private:
  struct alignas(64) Share {
    std::atomic<int64_t> next{0};
    int64_t end = 0;
  };
  struct Worker {
    std::thread thread;
    std::atomic<bool> stop{false};
  };

  explicit Pool(int threads);
  void ensure_workers();
  void stop_workers();
  void publish(int64_t n, int64_t chunks, int shares, const RangeTask& task);
  void close_and_wait();
  void work(int first_share);
  void run_chunk(int64_t chunk);
  void worker_loop(Worker& self, int index);
  bool wait_for_job(Worker& self, uint64_t seen);

  std::mutex run_mutex_;  // one job at a time: Node.js threads take turns
  std::vector<std::unique_ptr<Worker>> workers_;
  std::atomic<int> threads_;

  // The job: written under run_mutex_ while no worker is inside.
  const RangeTask* task_ = nullptr;
  int64_t n_ = 0;
  int64_t chunks_ = 0;
  int n_shares_ = 0;
  std::vector<Share> shares_;
  std::exception_ptr failure_;
  std::atomic<bool> failed_{false};

  std::atomic<uint64_t> state_{0};
  std::atomic<int> sleepers_{0};
  std::mutex sleep_mutex_;
  std::condition_variable wake_;
  std::condition_variable done_;
};

}  // namespace gsa::cpu
