#include "emulator.h"

#include <sys/mman.h>

namespace emulator {

Thread* current;
std::vector<Block> blocks;
char* shared_memory;
int threads_of_block;
uint3 blocks_launched{};
int clusters_of_device = 132;

namespace {
void* scheduler;
const std::function<void()>* body;
}  // namespace

// Saves the registers that a call keeps, and goes on where `to` was left.
extern "C" void emulator_switch(void** from, void* to);
#if defined(__x86_64__)
asm(R"(
.globl emulator_switch
emulator_switch:
  pushq %rbp
  pushq %rbx
  pushq %r12
  pushq %r13
  pushq %r14
  pushq %r15
  movq %rsp, (%rdi)
  movq %rsi, %rsp
  popq %r15
  popq %r14
  popq %r13
  popq %r12
  popq %rbx
  popq %rbp
  ret
)");
#else
#error "The emulator switches threads with x86-64 instructions"
#endif

void pause() { emulator_switch(&current->stack, scheduler); }

namespace {

void run_thread() {
  (*body)();
  current->done = true;
  pause();
}

void* reserve(size_t bytes) {
  void* memory =
      mmap(nullptr, bytes, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
  if (memory == MAP_FAILED) {
    std::printf("no memory for %zu bytes\n", bytes);
    std::exit(1);
  }
  return memory;
}

bool can_run(Thread& t) {
  if (t.done) return false;
  if (t.waits && t.waits->rounds == t.round) return false;
  if (t.flag && !*t.flag) return false;
  if (t.bytes && (*t.bytes >> 33) % 2 == t.phase) return false;
  t.waits = nullptr;
  t.flag = nullptr;
  t.bytes = nullptr;
  return true;
}

void run_all(std::vector<Thread>& threads) {
  for (size_t left = threads.size(); left > 0;) {
    bool progress = false;
    for (Thread& t : threads) {
      if (!can_run(t)) continue;
      progress = true;
      current = &t;
      emulator_switch(&scheduler, t.stack);
      left -= t.done;
    }
    if (!progress) {
      std::printf("DEADLOCK: %zu of %zu threads wait\n", left, threads.size());
      std::exit(1);
    }
  }
}

}  // namespace

void launch(int n_blocks, int n_threads, int cluster, int shared_bytes, const std::function<void()>& kernel,
            unsigned first_block) {
  constexpr size_t kStack = 128 << 10;
  const size_t shared = (static_cast<size_t>(shared_bytes) + 1023) / 1024 * 1024;
  body = &kernel;
  threads_of_block = n_threads;
  shared_memory = static_cast<char*>(reserve(shared * n_blocks + 1));
  std::memset(shared_memory, 0x7f, shared * n_blocks);
  char* const stacks = static_cast<char*>(reserve(kStack * n_blocks * n_threads));
  blocks.assign(n_blocks, Block{});
  std::vector<Cluster> clusters(n_blocks / cluster, Cluster{{}, {}, cluster * n_threads});
  std::vector<Thread> threads(static_cast<size_t>(n_blocks) * n_threads);
  for (size_t i = 0; i < threads.size(); ++i) {
    const int b = static_cast<int>(i / n_threads);
    Thread& t = threads[i];
    blocks[b].shared = shared_memory + shared * b;
    blocks[b].first_of_cluster = b / cluster * cluster;
    t.thread = {static_cast<unsigned>(i % n_threads), 0, 0};
    t.block_index = {first_block + static_cast<unsigned>(b), 0, 0};
    t.block = &blocks[b];
    t.cluster = &clusters[b / cluster];
    t.rank = b % cluster;
    void** top = reinterpret_cast<void**>(stacks + kStack * (i + 1));
    *--top = nullptr;  // the stack as a call leaves it
    *--top = reinterpret_cast<void*>(run_thread);
    for (int saved = 0; saved < 6; ++saved) *--top = nullptr;
    t.stack = top;
  }
  run_all(threads);
  munmap(stacks, kStack * threads.size());
  munmap(shared_memory, shared * n_blocks + 1);
}

}  // namespace emulator
