#include <algorithm>
#include <cstring>
#include <vector>

#include "../../cpu/device.h"
#include "../../cpu/parallel.h"
#include "params.h"

#define GSA_SIMD_FILE "../../ops/short_conv/short_conv.inl"
#include "../../cpu/simd/foreach_isa.h"

namespace gsa::cpu {

namespace {

using convolution::Dims;
using Inputs = convolution::Inputs<float>;
using ShortConvFwd = convolution::ShortConvFwd<float>;
using ShortConvBwd = convolution::ShortConvBwd<float>;

constexpr int64_t kRowGrain = 16;
constexpr int64_t kTapBlocks = 32;  // partial sums of dweight at most, of kTapRows rows at least
constexpr int64_t kTapRows = 64;

// [D, W] as [W, D], so that a row of channels meets a row of taps.
std::vector<float> transposed_taps(const Inputs& in, const Dims& d) {
  std::vector<float> taps(static_cast<size_t>(d.D * d.W));
  for (int64_t c = 0; c < d.D; ++c)
    for (int64_t j = 0; j < d.W; ++j) taps[static_cast<size_t>(j * d.D + c)] = in.weight[c * d.W + j];
  return taps;
}

// Where sequences lie among the B * T rows, and the rows before them: [N, W - 1, D], from the states or
// zeros.
class Sequences {
 public:
  Sequences(const Dims& d, const Inputs& in) : d_(d), in_(in) {
    if (in.cu_seqlens) check_cu_seqlens(in.cu_seqlens, d.N, d.T);
    before_.resize(static_cast<size_t>(d.N * (d.W - 1) * d.D), 0.0f);
    if (!in.state) return;
    for (int64_t n = 0; n < d.N; ++n)
      for (int64_t c = 0; c < d.D; ++c)
        for (int64_t i = 0; i < d.W - 1; ++i)
          before_[static_cast<size_t>((n * (d.W - 1) + i) * d.D + c)] =
              in.state[(n * d.D + c) * (d.W - 1) + i];
  }

  int64_t rows() const { return d_.B * d_.T; }
  int64_t begin(int64_t n) const { return in_.cu_seqlens ? in_.cu_seqlens[n] : n * d_.T; }
  int64_t end(int64_t n) const { return in_.cu_seqlens ? in_.cu_seqlens[n + 1] : (n + 1) * d_.T; }

  // The sequence of a row.
  int64_t of(int64_t row) const {
    if (!in_.cu_seqlens) return row / d_.T;
    return std::upper_bound(in_.cu_seqlens, in_.cu_seqlens + d_.N + 1, static_cast<int32_t>(row)) -
           in_.cu_seqlens - 1;
  }

  // The inputs of the row at `offset` from the start of sequence n, -(W - 1) <= offset < length.
  const float* input(int64_t n, int64_t offset) const {
    if (offset >= 0) return in_.x + (begin(n) + offset) * d_.D;
    return before_.data() + (n * (d_.W - 1) + d_.W - 1 + offset) * d_.D;
  }

  // The rows under the taps for the output of `row`.
  void window(int64_t row, const float** rows) const {
    const int64_t n = of(row), offset = row - begin(n);
    for (int64_t j = 0; j < d_.W; ++j) rows[j] = input(n, offset - (d_.W - 1) + j);
  }

 private:
  const Dims& d_;
  const Inputs& in_;
  std::vector<float> before_;
};

void write_states(const Sequences& sequences, const Dims& d, float* state_out) {
  for (int64_t n = 0; n < d.N; ++n) {
    const int64_t length = sequences.end(n) - sequences.begin(n);
    for (int64_t i = 0; i < d.W - 1; ++i) {
      const float* row = sequences.input(n, length - (d.W - 1) + i);
      for (int64_t c = 0; c < d.D; ++c) state_out[(n * d.D + c) * (d.W - 1) + i] = row[c];
    }
  }
}

// The gradient with respect to the row at `offset` of sequence n (negative: of its state) through the
// outputs.
struct InputGradient {
  const Sequences& sequences;
  const Dims& d;
  const float* dz;
  const float* taps;

  void write(int64_t n, int64_t offset, float* dx) const {
    static const auto kernel = GSA_SIMD_SELECT(conv_row_dx);
    const int64_t first = sequences.begin(n), length = sequences.end(n) - first;
    const float* rows[convolution::kMaxWidth];
    for (int64_t j = 0; j < d.W; ++j) {
      const int64_t t = offset + (d.W - 1) - j;  // the output that saw this input under tap j
      rows[j] = t >= 0 && t < length ? dz + (first + t) * d.D : nullptr;
    }
    kernel(rows, taps, d.W, d.D, dx);
  }
};

// Adds dstate_out, and writes dstate: the rows before each sequence, and those that the state after it
// copied.
void state_gradients(const ShortConvBwd& p, const Sequences& sequences, const InputGradient& gradient) {
  const Dims& d = p.dims;
  std::vector<float> row(static_cast<size_t>(d.D));
  for (int64_t n = 0; n < d.N; ++n) {
    const int64_t first = sequences.begin(n), length = sequences.end(n) - first;
    // dstate_out[i] reaches input length - (W - 1) + i.
    const auto from_state = [&](int64_t offset, int64_t c) {
      const int64_t i = offset - length + (d.W - 1);
      return p.dstate_out && i >= 0 ? p.dstate_out[(n * d.D + c) * (d.W - 1) + i] : 0.0f;
    };
    for (int64_t offset = std::max<int64_t>(0, length - (d.W - 1)); offset < length; ++offset)
      for (int64_t c = 0; c < d.D; ++c) p.dx[(first + offset) * d.D + c] += from_state(offset, c);
    if (!p.dstate) continue;
    for (int64_t i = 0; i < d.W - 1; ++i) {
      const int64_t offset = i - (d.W - 1);
      gradient.write(n, offset, row.data());
      for (int64_t c = 0; c < d.D; ++c)
        p.dstate[(n * d.D + c) * (d.W - 1) + i] = row[static_cast<size_t>(c)] + from_state(offset, c);
    }
  }
}

// dweight as partial sums of fixed blocks of rows, whatever the thread count.
void tap_gradients(const ShortConvBwd& p, const Sequences& sequences, const float* dz) {
  static const auto kernel = GSA_SIMD_SELECT(conv_row_dtaps);
  const Dims& d = p.dims;
  const int64_t blocks = std::min(kTapBlocks, (sequences.rows() + kTapRows - 1) / kTapRows);
  const int64_t taps = d.W * d.D;
  std::vector<float> partial(static_cast<size_t>(blocks * taps), 0.0f);
  parallel_for(blocks, 1, [&](int64_t begin, int64_t end) {
    const float* rows[convolution::kMaxWidth];
    for (int64_t b = begin; b < end; ++b) {
      for (int64_t r = sequences.rows() * b / blocks; r < sequences.rows() * (b + 1) / blocks; ++r) {
        sequences.window(r, rows);
        kernel(rows, dz + r * d.D, d.W, d.D, partial.data() + b * taps);
      }
    }
  });
  std::vector<double> total(static_cast<size_t>(taps), 0.0);
  for (int64_t b = 0; b < blocks; ++b)
    for (int64_t i = 0; i < taps; ++i)
      total[static_cast<size_t>(i)] += partial[static_cast<size_t>(b * taps + i)];
  for (int64_t c = 0; c < d.D; ++c)
    for (int64_t j = 0; j < d.W; ++j)
      p.dweight[c * d.W + j] = static_cast<float>(total[static_cast<size_t>(j * d.D + c)]);
}

}  // namespace

void short_conv_fwd(gsa_device&, const Args& args) {
  static const auto kernel = GSA_SIMD_SELECT(conv_row);
  const ShortConvFwd p = convolution::read_short_conv_fwd<float>(args, GSA_FLOAT32);
  const Dims& d = p.dims;
  const Sequences sequences(d, p.in);
  const std::vector<float> taps = transposed_taps(p.in, d);
  parallel_for(sequences.rows(), kRowGrain, [&](int64_t begin, int64_t end) {
    const float* rows[convolution::kMaxWidth];
    for (int64_t r = begin; r < end; ++r) {
      sequences.window(r, rows);
      kernel(rows, taps.data(), d.W, d.D, p.y + r * d.D, p.in.silu);
    }
  });
  if (p.state_out) write_states(sequences, d, p.state_out);
}

void short_conv_bwd(gsa_device& device, const Args& args) {
  static const auto kernel = GSA_SIMD_SELECT(conv_row_dz);
  const ShortConvBwd p = convolution::read_short_conv_bwd<float>(args, GSA_FLOAT32);
  const Dims& d = p.dims;
  const Sequences sequences(d, p.in);
  const std::vector<float> taps = transposed_taps(p.in, d);
  const Scratch<float> through_silu(device, p.in.silu ? sequences.rows() * d.D : 0);
  if (p.in.silu) {
    parallel_for(sequences.rows(), kRowGrain, [&](int64_t begin, int64_t end) {
      const float* rows[convolution::kMaxWidth];
      for (int64_t r = begin; r < end; ++r) {
        sequences.window(r, rows);
        kernel(rows, taps.data(), d.W, d.D, p.dy + r * d.D, through_silu.data() + r * d.D);
      }
    });
  }
  const float* dz = p.in.silu ? through_silu.data() : p.dy;
  const InputGradient gradient{sequences, d, dz, taps.data()};
  parallel_for(sequences.rows(), kRowGrain, [&](int64_t begin, int64_t end) {
    for (int64_t r = begin; r < end; ++r) {
      const int64_t n = sequences.of(r);
      gradient.write(n, r - sequences.begin(n), p.dx + r * d.D);
    }
  });
  state_gradients(p, sequences, gradient);
  tap_gradients(p, sequences, dz);
}

}  // namespace gsa::cpu
