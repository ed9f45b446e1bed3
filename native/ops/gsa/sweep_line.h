// Which steps of which walks a cluster of the sweeps does, and in what order. Plain arithmetic, for device
// and host.
#pragma once

#include <cstdint>

#ifdef __CUDACC__
#define GSA_HOST_DEVICE __host__ __device__ __forceinline__
#else
#define GSA_HOST_DEVICE inline
#endif

namespace gsa::sm90 {

// The same in all threads of a warp, said so that the compiler knows it: what was read from memory might
// differ.
GSA_HOST_DEVICE int uniform(int x) {
#if defined(__CUDA_ARCH__) || defined(__shfl_sync)  // the latter: emulated
  return __shfl_sync(~0u, x, 0);
#else
  return x;
#endif
}

constexpr int kStep = 64;  // tokens between two barriers of the cluster

// Where a step lies.
struct Location {
  int row;   // its first row among the B * T rows
  int rows;  // from there to the end of the sequence
  int sequence, head, kv_head;
  int chunk;  // number of the step's 64 rows in the sequence
  int step, start, stop,
      steps;  // number of the step in the walk; the piece [start, stop) that this cluster does; all
};

// First stored state of a sequence: ceil(rows / 64) of them fit before that of the next.
GSA_HOST_DEVICE int64_t first_anchor(int64_t row, int64_t sequence) { return row / kStep + sequence; }

// Rows of sequence n. Offsets are clamped: whatever cu_seqlens holds, nothing outside the tensors is touched.
struct Rows {
  int64_t begin, end;
};
GSA_HOST_DEVICE Rows rows_of(const int32_t* cu_seqlens, int64_t T, int64_t n) {
  if (!cu_seqlens) return {n * T, (n + 1) * T};
  const auto clamp = [](int64_t x, int64_t low, int64_t high) { return x < low ? low : x > high ? high : x; };
  const int64_t begin = clamp(cu_seqlens[n], 0, T);
  return {begin, clamp(cu_seqlens[n + 1], begin, T)};
}

// What a cluster does of a walk without interruption.
struct alignas(16) Piece {
  int row, rows;  // first row of the sequence, and how many
  int sequence, head, kv_head;
  int start, stop, steps;  // as in Location
};

// The steps of all walks in a line, cut into equal intervals, one a cluster, so that no cluster idles in a
// last wave (the wrap-around rule of McNaughton, Management Science 6, 1959). A cluster does the walks of its
// interval from the last to the first: the walk that the cut after it divides comes first, with its first
// steps; the walk that the cut before it divides comes last, when the cluster before has long handed over its
// states, if that one was not cut out of the middle of the walk (sweep_segments_sm90.cuh). So clusters wait
// for earlier ones only.
//
// The pieces are found before (gsa_sweep_line_sm90.cu), since the lengths of packed documents are on the
// device only, and since what a sweep computes less it has registers for.
struct LineTable {
  const int* begins;    // [clusters + 1] where the intervals begin, and the end of the line
  const Piece* pieces;  // [step of the line]: at begin + i of a cluster the piece that its step i begins
};
GSA_HOST_DEVICE int64_t interval_begin(int64_t cluster, int64_t all, int64_t clusters) {
  return cluster < clusters ? cluster * all / clusters : all;
}
// How many of the clusters get an interval. Three steps more fill and empty a cluster, and an empty interval
// must not lie between others: who goes on with a walk looks for its state at the number before its own.
constexpr int64_t kLeastSteps = 4;
GSA_HOST_DEVICE int64_t worthwhile(int64_t all, int64_t clusters) {
  const int64_t most = all / kLeastSteps;
  return most < 1 ? 1 : most < clusters ? most : clusters;
}
// The pieces of a walk that is [first, first + walk.steps) of a line of `all` steps; no empty intervals.
GSA_HOST_DEVICE void cut_walk(Piece walk, int64_t first, int64_t all, int64_t clusters, Piece* pieces) {
  const int64_t end = first + walk.steps;
  // From the last cluster whose interval begins before `end` on back.
  for (int64_t c = (end * clusters - 1) / all; c >= 0; --c) {
    const int64_t from = interval_begin(c, all, clusters), to = interval_begin(c + 1, all, clusters);
    if (to <= first) return;
    walk.start = static_cast<int>((from > first ? from : first) - first);
    walk.stop = static_cast<int>((to < end ? to : end) - first);
    pieces[from + to - (first + walk.stop)] = walk;
  }
}

// Keeps the compiler from holding the address of a piece in registers between pieces.
GSA_HOST_DEVICE const Piece* found_late(const Piece* p) {
#ifdef __CUDA_ARCH__
  asm volatile("" : "+l"(p));
#endif
  return p;
}

// x, not negative, read from memory: what compares it waits for it.
GSA_HOST_DEVICE int arrived(int x) { return x > 0 ? x : 0; }

// The interval of a cluster.
struct Line {
  const Piece* pieces;
  int begin, steps;
  GSA_HOST_DEVICE Line(const LineTable& table, int cluster)
      : pieces(table.pieces), begin(table.begins[cluster]), steps(table.begins[cluster + 1] - begin) {}

  // Step `at` of the cluster, the first of a piece. kReverse: a walk starts at the end of its sequence.
  template <bool kReverse>
  GSA_HOST_DEVICE Location locate(int at) const {
    const Piece p = *found_late(pieces + begin + at);
    Location x;
    x.sequence = p.sequence;
    x.head = p.head;
    x.kv_head = p.kv_head;
    x.start = x.step = p.start;
    x.stop = p.stop;
    x.steps = p.steps;
    x.chunk = kReverse ? p.steps - 1 - p.start : p.start;
    x.row = p.row + x.chunk * kStep;
    x.rows = p.rows - x.chunk * kStep;
    return x;
  }
};

// The steps of a cluster one after another, without divisions inside a walk. kSettles: a piece has been read
// when it becomes `here`. Else who uses it may wait for it, which is nothing by itself, but in a step in
// which other loads are on their way he may have to wait for them, too: they share the few counters that
// there are.
template <bool kReverse, bool kSettles = false>
struct Cursor {
  const Line& line;
  int at = 0;
  Location here;

  GSA_HOST_DEVICE explicit Cursor(const Line& l) : line(l), here{} {
    if (line.steps > 0) locate();
  }
  GSA_HOST_DEVICE bool inside() const { return at < line.steps; }
  GSA_HOST_DEVICE void advance() {
    ++at;
    if (here.step + 1 < here.stop) {
      ++here.step;
      here.chunk += kReverse ? -1 : 1;
      here.row += kReverse ? -kStep : kStep;
      here.rows += kReverse ? kStep : -kStep;
    } else if (inside()) {
      locate();
    }
  }

 private:
  GSA_HOST_DEVICE void locate() {
    here = line.template locate<kReverse>(at);
    if constexpr (kSettles)
      for (int* x :
           {&here.sequence, &here.head, &here.kv_head, &here.step, &here.start, &here.stop, &here.steps})
        *x = arrived(*x);
  }
};

}  // namespace gsa::sm90
