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
#ifdef __CUDA_ARCH__
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

// The steps of all walks in a line, cut into equal intervals, one a cluster, so that no cluster idles in a
// last wave (the wrap-around rule of McNaughton, Management Science 6, 1959). A cluster does the walks of its
// interval from the last to the first: the walk that the cut after it divides comes first, with its first
// steps; the walk that the cut before it divides comes last, when the cluster before has long handed over its
// states. So clusters wait for earlier ones only. With cu_seqlens, whose lengths are on the device, every
// walk has its own cluster.
struct Line {
  const int32_t* cu_seqlens;
  int64_t T;
  int heads, group, base, begin, end, n;  // walks of n steps each; the interval [begin, end) of their steps
  int last, last_start, last_steps;

  // Every walk is one of H heads; `of_group` of them share a key/value head.
  GSA_HOST_DEVICE Line(const int32_t* cu, int64_t length, int64_t N, int64_t H, int of_group, int cluster,
                       int clusters)
      : cu_seqlens(cu), T(length), heads(static_cast<int>(H)), group(of_group), base(0) {
    if (cu) {
      base = cluster;
      const Rows r = rows_of(cu, T, cluster / heads);
      n = uniform(static_cast<int>((r.end - r.begin + kStep - 1) / kStep));
      begin = 0;
      end = n;
    } else {
      n = static_cast<int>((T + kStep - 1) / kStep);
      const int64_t all = N * H * n;
      begin = static_cast<int>(cluster * all / clusters);
      end = static_cast<int>((cluster + 1) * all / clusters);
    }
    last = n ? (end - 1) / n : 0;
    last_start = begin > last * n ? begin - last * n : 0;
    last_steps = end - last * n - last_start;
  }
  GSA_HOST_DEVICE int total() const { return end - begin; }

  // Step `at` of the cluster, 0 <= at < total(). kReverse: a walk starts at the end of its sequence.
  template <bool kReverse>
  GSA_HOST_DEVICE Location locate(int at) const {
    Location x;
    int walk = last;
    if (at < last_steps) {
      x.start = last_start;
      x.step = last_start + at;
      x.stop = last_start + last_steps;
    } else {
      const int whole = (at - last_steps) / n;
      walk = last - 1 - whole;
      x.start = begin > walk * n ? begin - walk * n : 0;
      x.step = x.start + at - last_steps - whole * n;
      x.stop = n;
    }
    x.steps = n;
    x.chunk = kReverse ? n - 1 - x.step : x.step;
    walk += base;
    x.sequence = walk / heads;
    x.head = walk - x.sequence * heads;
    x.kv_head = x.head / group;
    const Rows r = rows_of(cu_seqlens, T, x.sequence);
    x.row = static_cast<int>(r.begin) + x.chunk * kStep;
    x.rows = static_cast<int>(r.end) - x.row;
    return x;
  }
};

// The steps of a cluster one after another, without divisions inside a walk.
template <bool kReverse>
struct Cursor {
  const Line& line;
  int at = 0;
  Location here;

  GSA_HOST_DEVICE explicit Cursor(const Line& l) : line(l), here{} {
    if (line.total() > 0) here = line.template locate<kReverse>(0);
  }
  GSA_HOST_DEVICE bool inside() const { return at < line.total(); }
  GSA_HOST_DEVICE void advance() {
    ++at;
    if (here.step + 1 < here.stop) {
      ++here.step;
      here.chunk += kReverse ? -1 : 1;
      here.row += kReverse ? -kStep : kStep;
      here.rows += kReverse ? kStep : -kStep;
    } else if (inside()) {
      here = line.template locate<kReverse>(at);
    }
  }
};

}  // namespace gsa::sm90
