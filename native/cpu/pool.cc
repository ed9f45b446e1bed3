#include "pool.h"

#include <signal.h>

#include <algorithm>
#include <chrono>
#include <system_error>

#include "host.h"

namespace gsa::cpu {

namespace {

// state_: epoch << 17 | open << 16 | workers inside.
constexpr uint64_t kInside = 0xffff;
constexpr uint64_t kOpen = 1u << 16;
constexpr uint64_t kEpoch = 1u << 17;
constexpr int64_t kChunksPerThread = 4;

// Long enough to bridge the gap between two ops of a training step, short enough not to burn a shared core.
constexpr std::chrono::microseconds kSpin{50};

thread_local bool inside_job = false;

void pause_briefly() {
#if defined(__x86_64__) || defined(__i386__)
  __builtin_ia32_pause();
#elif defined(__aarch64__)
  asm volatile("yield");
#endif
}

template <typename Condition>
bool spin_until(Condition condition) {
  const auto deadline = std::chrono::steady_clock::now() + kSpin;
  do {
    for (int i = 0; i < 32; ++i) {
      if (condition()) return true;
      pause_briefly();
    }
  } while (std::chrono::steady_clock::now() < deadline);
  return condition();
}

// Signals belong to Node.js' own threads: workers start with all of them blocked.
class BlockedSignals {
 public:
  BlockedSignals() {
    sigset_t all;
    sigfillset(&all);
    pthread_sigmask(SIG_SETMASK, &all, &old_);
  }
  ~BlockedSignals() { pthread_sigmask(SIG_SETMASK, &old_, nullptr); }

 private:
  sigset_t old_;
};

class InsideJob {
 public:
  InsideJob() { inside_job = true; }
  ~InsideJob() { inside_job = false; }
};

}  // namespace

Pool& Pool::get() {
  static Pool* const pool = new Pool(default_thread_count());
  return *pool;
}

Pool::Pool(int threads) : threads_(threads) {}

void Pool::ensure_workers() {
  const size_t wanted = static_cast<size_t>(size() - 1);
  if (workers_.size() == wanted) return;
  BlockedSignals blocked;
  try {
    shares_ = std::vector<Share>(wanted + 1);
    while (workers_.size() < wanted) {
      auto worker = std::make_unique<Worker>();
      Worker& self = *worker;
      const int index = static_cast<int>(workers_.size()) + 1;
      self.thread = std::thread([this, &self, index] { worker_loop(self, index); });
      workers_.push_back(std::move(worker));
    }
  } catch (const std::system_error& e) {
    const size_t started = workers_.size() + 1;
    stop_workers();
    fail(GSA_OUT_OF_MEMORY,
         "Expected to start %zu threads but the system refused after %zu (%s); set FLASH_GSA_THREADS or the "
         "\"threads\" option to a smaller number",
         wanted + 1, started, e.what());
  }
}

void Pool::stop_workers() {
  {
    std::lock_guard<std::mutex> lock(sleep_mutex_);
    for (auto& worker : workers_) worker->stop.store(true);
  }
  wake_.notify_all();
  for (auto& worker : workers_) worker->thread.join();
  workers_.clear();
}

void Pool::resize(int threads) {
  std::lock_guard<std::mutex> lock(run_mutex_);
  if (threads == size()) return;
  stop_workers();
  threads_.store(threads);
}

void Pool::run(int64_t n, int64_t grain, RangeTask task) {
  const int64_t most = inside_job ? 1 : n / grain;
  if (most <= 1 || size() == 1) return task(0, n);

  std::lock_guard<std::mutex> lock(run_mutex_);
  const int threads = size();
  const int64_t chunks = std::min(most, threads * kChunksPerThread);
  const int shares = static_cast<int>(std::min<int64_t>(chunks, threads));
  if (shares == 1) return task(0, n);
  ensure_workers();
  InsideJob inside;
  publish(n, chunks, shares, task);
  work(0);
  close_and_wait();
  if (failure_) {
    std::exception_ptr failure;
    failure.swap(failure_);
    std::rethrow_exception(failure);
  }
}

void Pool::publish(int64_t n, int64_t chunks, int shares, const RangeTask& task) {
  task_ = &task;
  n_ = n;
  chunks_ = chunks;
  n_shares_ = shares;
  failed_.store(false, std::memory_order_relaxed);
  for (int i = 0; i < shares; ++i) {
    shares_[i].next.store(chunks * i / shares, std::memory_order_relaxed);
    shares_[i].end = chunks * (i + 1) / shares;
  }
  // Sequentially consistent with the sleepers' own "I sleep, is there a job?": one of the two sees the other.
  state_.store(((state_.load() | (kEpoch - 1)) + 1) | kOpen);
  const int asleep = sleepers_.load(), wanted = shares - 1;
  if (asleep == 0) return;
  {
    std::lock_guard<std::mutex> lock(sleep_mutex_);
  }
  if (asleep <= wanted) return wake_.notify_all();
  for (int i = 0; i < wanted; ++i) wake_.notify_one();
}

void Pool::close_and_wait() {
  state_.fetch_and(~kOpen);
  const auto empty = [this] { return (state_.load(std::memory_order_acquire) & kInside) == 0; };
  if (spin_until(empty)) return;
  std::unique_lock<std::mutex> lock(sleep_mutex_);
  done_.wait(lock, empty);
}

void Pool::work(int first_share) {
  for (int i = 0; i < n_shares_; ++i) {
    Share& share = shares_[(first_share + i) % n_shares_];
    while (share.next.load(std::memory_order_relaxed) < share.end) {
      const int64_t chunk = share.next.fetch_add(1, std::memory_order_relaxed);
      if (chunk < share.end) run_chunk(chunk);
    }
  }
}

void Pool::run_chunk(int64_t chunk) {
  if (failed_.load(std::memory_order_relaxed)) return;
  // n / chunks and the remainder apart: n * chunk may exceed 64 bits.
  const int64_t size = n_ / chunks_, rest = n_ % chunks_;
  const int64_t begin = chunk * size + std::min(chunk, rest);
  try {
    (*task_)(begin, begin + size + (chunk < rest ? 1 : 0));
  } catch (...) {
    std::lock_guard<std::mutex> lock(sleep_mutex_);
    if (!failed_.exchange(true)) failure_ = std::current_exception();
  }
}

void Pool::worker_loop(Worker& self, int index) {
  inside_job = true;  // for good: whatever a worker runs is part of a job
  uint64_t seen = 0;
  while (wait_for_job(self, seen)) {
    uint64_t state = state_.load();
    while ((state & kOpen) && !state_.compare_exchange_weak(state, state + 1)) {
    }
    seen = state / kEpoch;
    if (!(state & kOpen)) continue;
    work(index);
    const uint64_t left = state_.fetch_sub(1);
    if ((left & kInside) == 1 && !(left & kOpen)) {
      {
        std::lock_guard<std::mutex> lock(sleep_mutex_);
      }
      done_.notify_one();
    }
  }
}

// True when there is an open job with another epoch than `seen`; false when the worker is to end.
bool Pool::wait_for_job(Worker& self, uint64_t seen) {
  const auto ready = [&] {
    const uint64_t state = state_.load();
    return self.stop.load(std::memory_order_relaxed) || ((state & kOpen) && state / kEpoch != seen);
  };
  if (!spin_until(ready)) {
    std::unique_lock<std::mutex> lock(sleep_mutex_);
    sleepers_.fetch_add(1);
    wake_.wait(lock, ready);
    sleepers_.fetch_sub(1);
  }
  return !self.stop.load();
}

void parallel_for_range(int64_t n, int64_t grain, RangeTask task) { Pool::get().run(n, grain, task); }

int thread_count() { return Pool::get().size(); }

void set_thread_count(int count) { Pool::get().resize(count); }

}  // namespace gsa::cpu
