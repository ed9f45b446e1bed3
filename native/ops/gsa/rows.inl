// Kernels of rows_cpu.h for one instruction set; included through cpu/simd/foreach_isa.h. kSlotPad is a
// multiple of kLanes, so that [rows, slots] arrays need no remainder loops. A tile is kSlotPad slots: enough
// independent sums to hide the latency of an addition while the tile's share of `writes` stays in the
// first-level cache.

constexpr int64_t kTile = kSlotPad / kLanes;

GSA_INLINE void block_tables_of(const float* s, const float* g, int64_t rows, int64_t ld, float* step,
                                float* from_start, float* s_to_end, float* block_decay) {
  for (int64_t m = 0; m < ld; m += kLanes) {
    vf sum = {};
    for (int64_t i = m; i < rows * ld; i += ld) {
      const vf gate = load(g + i);
      sum += gate;
      store(step + i, exp(gate));
      store(from_start + i, exp(sum));
    }
    store(block_decay + m, exp(sum));
    sum = vf{};
    for (int64_t i = (rows - 1) * ld + m; i >= 0; i -= ld) {
      store(s_to_end + i, load(s + i) * exp(sum));
      sum += load(g + i);
    }
  }
}

static void block_tables(const float* s, const float* g, int64_t rows, int64_t ld, float* step,
                         float* from_start, float* s_to_end, float* block_decay) {
  for (int64_t b = 0; b < rows; b += kBlock) {
    const int64_t n = rows - b < kBlock ? rows - b : kBlock, at = b * ld;
    block_tables_of(s + at, g + at, n, ld, step + at, from_start + at, s_to_end + at,
                    block_decay + b / kBlock * ld);
  }
}

static void chunk_tables(const float* s, const float* g, int64_t rows, int64_t ld, float* to_end,
                         float* s_to_end, float* decay) {
  for (int64_t m = 0; m < ld; m += kLanes) {
    vf sum = {};
    for (int64_t i = (rows - 1) * ld + m; i >= 0; i -= ld) {
      const vf e = exp(sum);
      store(to_end + i, e);
      store(s_to_end + i, load(s + i) * e);
      sum += load(g + i);
    }
    store(decay + m, exp(sum));
  }
}

static void scale_columns(float* x, int64_t rows, int64_t ld, const float* factor) {
  for (int64_t i = 0; i < rows; ++i, x += ld)
    for (int64_t m = 0; m < ld; m += kLanes) store(x + m, load(x + m) * load(factor + m));
}

static void decay_columns(const float* x, const float* decay, int64_t rows, int64_t columns, float* y) {
  for (int64_t i = 0; i < rows; ++i, x += columns, y += columns)
    for (int64_t m = 0; m < columns; ++m) y[m] += x[m] * decay[m];
}

static void decay_rows(const float* x, const float* decay, int64_t rows, int64_t columns, float* y) {
  for (int64_t i = 0; i < rows; ++i, x += columns, y += columns)
    for (int64_t c = 0; c < columns; ++c) y[c] += x[c] * decay[i];
}

static void dot_columns(const float* a, const float* b, int64_t rows, int64_t columns, float* out) {
  for (int64_t i = 0; i < rows; ++i, a += columns, b += columns)
    for (int64_t m = 0; m < columns; ++m) out[m] += a[m] * b[m];
}

static void dot_rows(const float* a, const float* b, int64_t rows, int64_t columns, float* out) {
  for (int64_t i = 0; i < rows; ++i, a += columns, b += columns) {
    vf sum = {};
    int64_t c = 0;
    for (; c + kLanes <= columns; c += kLanes) sum += load(a + c) * load(b + c);
    float total = hsum(sum);
    for (; c < columns; ++c) total += a[c] * b[c];
    out[i] += total;
  }
}

// In place on `slots` logits of a row of ld floats; the padding becomes zero.
GSA_INLINE void softmax_row(float* x, int64_t slots, int64_t ld) {
  for (int64_t m = slots; m < ld; ++m) x[m] = -kInf;
  vf top = load(x);
  for (int64_t m = kLanes; m < ld; m += kLanes) top = vmax(load(x + m), top);
  const float highest = hmax(top);
  vf sum = {};
  for (int64_t m = 0; m < ld; m += kLanes) {
    const vf e = exp(load(x + m) - highest);
    store(x + m, e);
    sum += e;
  }
  // A NaN among the logits may miss the maximum but not the sum. Padding gave exp(-inf) = 0.
  const float inverse = 1.0f / hsum(sum);
  for (int64_t m = 0; m < ld; m += kLanes) store(x + m, load(x + m) * inverse);
  for (int64_t m = slots; m < ld; ++m) x[m] = 0.0f;
}

static void softmax_rows(const float* logits, int64_t stride, int64_t rows, int64_t slots, int64_t ld,
                         float* p) {
  for (int64_t i = 0; i < rows; ++i, logits += stride, p += ld) {
    std::memcpy(p, logits, static_cast<size_t>(slots) * sizeof(float));
    softmax_row(p, slots, ld);
  }
}

// What rows 0 .. i - 1 wrote decays by row i's gates.
GSA_INLINE void decay_writes(float* writes, int64_t i, int64_t ld, const float* step, int64_t m) {
  for (int64_t j = 0; j < i; ++j) store(writes + j * ld + m, load(writes + j * ld + m) * load(step + m));
}

GSA_INLINE float dot(const float* a, const float* b, int64_t n) {
  vf sum[kTile] = {};
  for (int64_t m = 0; m < n; m += kSlotPad)
    for (int64_t l = 0; l < kTile; ++l) sum[l] += load(a + m + l * kLanes) * load(b + m + l * kLanes);
  for (int64_t l = 1; l < kTile; ++l) sum[0] += sum[l];
  return hsum(sum[0]);
}

static void forward_block(const ForwardBlock& block) {
  const ForwardBlock b = block;  // no store can alias a local, so its pointers stay in registers
  const int64_t ld = b.ld;
  for (int64_t i = 0; i < b.rows; ++i) {
    const float* step = b.step + i * ld;
    const float* from_start = b.from_start + i * ld;
    const float* qk = b.qk + i * kChunk;
    float* ok = b.ok + i * ld;
    float* p = b.p_decayed + i * ld;
    float* pv = b.pv + i * kChunk;
    std::memcpy(b.writes + i * ld, b.s + i * ld, static_cast<size_t>(ld) * sizeof(float));
    for (int64_t m = 0; m < ld; m += kSlotPad) {
      vf sum[kTile];
      for (int64_t l = 0; l < kTile; ++l)
        sum[l] = load(ok + m + l * kLanes) * load(from_start + m + l * kLanes);
      for (int64_t j = 0; j < i; ++j)
        for (int64_t l = 0; l < kTile; ++l) {
          float* w = b.writes + j * ld + m + l * kLanes;
          const vf kept = load(w) * load(step + m + l * kLanes);
          store(w, kept);
          sum[l] += kept * qk[j];
        }
      for (int64_t l = 0; l < kTile; ++l)
        store(ok + m + l * kLanes, sum[l] + load(b.s + i * ld + m + l * kLanes) * qk[i]);
    }
    std::memcpy(p, ok, static_cast<size_t>(ld) * sizeof(float));
    softmax_row(p, b.slots, ld);
    for (int64_t j = 0; j <= i; ++j) pv[j] = dot(p, b.writes + j * ld, ld);
    for (int64_t j = i + 1; j < b.rows; ++j) pv[j] = 0.0f;
    for (int64_t m = 0; m < ld; m += kLanes) store(p + m, load(p + m) * load(from_start + m));
  }
}

static void gather_block(const GatherBlock& block) {
  const GatherBlock b = block;  // no store can alias a local, so its pointers stay in registers
  const int64_t ld = b.ld;
  for (int64_t i = 0; i < b.rows; ++i) {
    const int64_t at = i * ld;
    const float *step = b.step + at, *from_start = b.from_start + at, *s = b.s + at, *p = b.p + at;
    const float *qk = b.qk + i * kChunk, *dov = b.dov + i * kChunk;
    float *dok = b.dok + at, *flow = b.flow + at;
    std::memcpy(b.writes + at, s, static_cast<size_t>(ld) * sizeof(float));
    // dok holds dp for now, dok_decayed the logits without row i's own term: both are needed once more when p
    // . dp is known. The own term decays with nothing, so that `flow`, which leads to dg, must not contain
    // it.
    vf p_dot_dp = {};
    for (int64_t m = 0; m < ld; m += kSlotPad) {
      vf ok_sum[kTile], dp_sum[kTile];
      for (int64_t l = 0; l < kTile; ++l) {
        const vf decay = load(from_start + m + l * kLanes);
        ok_sum[l] = load(b.ok_past + at + m + l * kLanes) * decay;
        dp_sum[l] = load(b.dp_past + at + m + l * kLanes) * decay;
      }
      for (int64_t j = 0; j < i; ++j)
        for (int64_t l = 0; l < kTile; ++l) {
          float* w = b.writes + j * ld + m + l * kLanes;
          const vf kept = load(w) * load(step + m + l * kLanes);
          store(w, kept);
          ok_sum[l] += kept * qk[j];
          dp_sum[l] += kept * dov[j];
        }
      for (int64_t l = 0; l < kTile; ++l) {
        const int64_t c = m + l * kLanes;
        const vf p_row = load(p + c);
        const vf dp = dp_sum[l] + load(s + c) * dov[i];
        p_dot_dp += p_row * dp;
        store(flow + c, load(flow + c) + p_row * dp_sum[l]);
        store(b.dok_decayed + at + c, ok_sum[l]);
        store(dok + c, dp);
      }
    }
    const float mean = hsum(p_dot_dp);
    for (int64_t m = 0; m < ld; m += kLanes) {
      const vf p_row = load(p + m), decay = load(from_start + m);
      const vf gradient = p_row * (load(dok + m) - mean);
      store(flow + m, load(flow + m) + gradient * load(b.dok_decayed + at + m));
      store(dok + m, gradient);
      store(b.dok_decayed + at + m, gradient * decay);
      store(b.p_decayed + at + m, p_row * decay);
    }
    for (int64_t j = 0; j <= i; ++j) {
      b.pv[i * kChunk + j] = dot(p, b.writes + j * ld, ld);
      b.dqk[i * kChunk + j] = dot(dok, b.writes + j * ld, ld);
    }
    for (int64_t j = i + 1; j < b.rows; ++j) b.pv[i * kChunk + j] = b.dqk[i * kChunk + j] = 0.0f;
  }
}

static void scatter_block(const ScatterBlock& block) {
  const ScatterBlock b = block;  // no store can alias a local, so its pointers stay in registers
  const int64_t ld = b.ld;
  for (int64_t i = b.rows - 1; i >= 0; --i) {
    const float *qk = b.qk + i * kChunk, *dov = b.dov + i * kChunk;
    for (int64_t m = 0; m < ld; m += kLanes) {
      const vf p = load(b.p + i * ld + m), dok = load(b.dok + i * ld + m), step = load(b.step + i * ld + m);
      for (int64_t j = 0; j < i; ++j) {
        float* later = b.later + j * ld + m;
        store(later, (load(later) + p * dov[j] + dok * qk[j]) * step);
      }
      // Every later row has passed its share back to row i by now.
      const vf later = load(b.later + i * ld + m);
      store(b.flow + i * ld + m, load(b.flow + i * ld + m) - load(b.s + i * ld + m) * later);
      store(b.ds + i * ld + m, load(b.ds + i * ld + m) + later + p * dov[i] + dok * qk[i]);
    }
  }
}

static void finish_gates(const float* u, const float* to_end, const float* s_to_end, const float* carry,
                         int64_t rows, int64_t slots, int64_t ld, int64_t stride, float* ds, float* dg) {
  for (int64_t m = 0; m < slots; m += kLanes) {
    const int64_t n = slots - m < kLanes ? slots - m : kLanes;
    vf sum = load(carry + m);
    for (int64_t i = 0; i < rows; ++i) {
      const vf gradient = load(u + i * ld + m);
      float *ds_row = ds + i * stride + m, *dg_row = dg + i * stride + m;
      const vf ds_old = n == kLanes ? load(ds_row) : load_partial(ds_row, n);
      const vf flow = n == kLanes ? load(dg_row) : load_partial(dg_row, n);
      const vf ds_new = ds_old + gradient * load(to_end + i * ld + m);
      if (n == kLanes) {
        store(ds_row, ds_new);
        store(dg_row, sum);
      } else {
        store_partial(ds_row, ds_new, n);
        store_partial(dg_row, sum, n);
      }
      sum += gradient * load(s_to_end + i * ld + m) - flow;
    }
  }
}
