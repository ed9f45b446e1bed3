// Arguments of clip_scale, adamw and its state ops, shared by every backend.
#pragma once

#include <cmath>
#include <cstdint>
#include <vector>

#include "../../abi/args.h"

namespace gsa::optimizer {

// clip_scale: sum_squares [1] -> scale [1], norm [1], max_norm grad_scale.
//   norm = grad_scale * sqrt(sum_squares); scale = grad_scale * min(1, max_norm / (norm + 1e-6)), NaN when
//   norm is not finite
// max_norm <= 0 or infinite: no clipping. grad_scale: what the summed gradients are still to be multiplied
// by.
struct ClipScale {
  const float* sum_squares;
  float* scale;
  float* norm;
  float max_norm, grad_scale;
};

inline ClipScale read_clip_scale(const Args& args) {
  return {read_one(args.in(0), "sum_squares"), read_one(args.out(0), "scale"), read_one(args.out(1), "norm"),
          static_cast<float>(args.attr(0)), static_cast<float>(args.attr(1))};
}

// One parameter tensor of adamw: float32, or bfloat16 with the remainders of its float32 masters, which are
// what is updated then (master.h).
struct AdamWTensor {
  int64_t n;
  int32_t grad_dtype;
  const void* grad;
  void* param;
  float* m;
  float* v;
  int16_t* remainder;  // NULL: param is float32
};

// What the attributes come to. Worked out in double: 1 - 0.999 in float is off by 1e-5, relative.
struct AdamWRates {
  float beta1, one_minus_beta1, beta2, one_minus_beta2;
  float eps;
  float keep;              // 1 - lr * weight_decay
  float step_size;         // lr / (1 - beta1^step)
  float correction2_sqrt;  // sqrt(1 - beta2^step)
};

// adamw (Loshchilov and Hutter 2019, as torch.optim.AdamW): with g = scale * grad,
//   p -= lr * weight_decay * p;  m = beta1 m + (1 - beta1) g;  v = beta2 v + (1 - beta2) g^2
//   p -= lr * (m / (1 - beta1^step)) / (sqrt(v / (1 - beta2^step)) + eps)
// scale: one element in device memory, NULL for 1. When it is not finite nothing is changed.
struct AdamW {
  std::vector<AdamWTensor> tensors;
  const float* scale;
  AdamWRates rates;
};

inline double read_rate(double value, double end, const char* name) {
  if (!(value >= 0 && value < end))
    fail(GSA_INVALID_ARGUMENT, "Expected a number from 0 to below %g for %s but received %g", end, name,
         value);
  return value;
}

inline void read_adamw_tensors(const Args& args, AdamW& p) {
  const int n = args.n_in() - 1;
  const bool split = args.n_out() == 4 * n;
  for (int i = 0; i < n; ++i) {
    const gsa_tensor &grad = args.in(1 + i), &param = args.out(i), &m = args.out(n + i),
                     &v = args.out(2 * n + i);
    const gsa_tensor* remainder = split ? &args.out(3 * n + i) : nullptr;
    expect_floating(grad, "grad");
    if (remainder) {
      expect_dtype(param, GSA_BFLOAT16, "param with remainders");
      expect_dtype(*remainder, GSA_INT16, "remainder");
    } else {
      expect_dtype(param, GSA_FLOAT32, "param without remainders");
    }
    expect_dtype(m, GSA_FLOAT32, "m");
    expect_dtype(v, GSA_FLOAT32, "v");
    for (const gsa_tensor* t : {&grad, &param, &m, &v, remainder}) {
      if (!t) continue;
      expect_contiguous(*t, "param, grad, m, v and remainder");
      if (element_count(*t) != element_count(param))
        fail(GSA_INVALID_ARGUMENT,
             "Expected shape %s for everything that belongs to param %d but received %s",
             shape_text(param).c_str(), i, shape_text(*t).c_str());
    }
    p.tensors.push_back({element_count(param), grad.dtype, grad.data, param.data, static_cast<float*>(m.data),
                         static_cast<float*>(v.data), data_or_null<int16_t>(remainder)});
  }
}

inline AdamWRates read_adamw_rates(const Args& args) {
  const double lr = read_rate(args.attr(0), INFINITY, "lr");
  const double beta1 = read_rate(args.attr(1), 1, "beta1"), beta2 = read_rate(args.attr(2), 1, "beta2");
  const double eps = read_rate(args.attr(3), INFINITY, "eps");
  const double weight_decay = read_rate(args.attr(4), INFINITY, "weight_decay");
  const double step = args.attr(5);
  if (!(step >= 1 && step == std::floor(step)))
    fail(GSA_INVALID_ARGUMENT, "Expected a step number of at least 1 but received %g", step);
  return {static_cast<float>(beta1),
          static_cast<float>(1.0 - beta1),
          static_cast<float>(beta2),
          static_cast<float>(1.0 - beta2),
          static_cast<float>(eps),
          static_cast<float>(1.0 - lr * weight_decay),
          static_cast<float>(lr / (1.0 - std::pow(beta1, step))),
          static_cast<float>(std::sqrt(1.0 - std::pow(beta2, step)))};
}

inline AdamW read_adamw(const Args& args) {
  AdamW p{};
  if (const gsa_tensor* scale = args.in_optional(0)) p.scale = read_one(*scale, "scale");
  p.rates = read_adamw_rates(args);
  read_adamw_tensors(args, p);
  return p;
}

// adamw_state_read: param remainder v -> master? exp_avg_sq?, adamw_state_write: the other way. What adamw
// keeps of a bfloat16 parameter (master.h), and the float32 tensors that checkpoints hold of it: the masters,
// and the second moments without the signs of v. Written masters make the parameter, its remainders and those
// signs; written moments leave all three. One of the two may be absent.
struct AdamWState {
  int64_t n;
  uint16_t* param;
  int16_t* remainder;
  float* v;
  float* master;      // NULL: absent
  float* exp_avg_sq;  // NULL: absent
};

inline AdamWState read_adamw_state(const gsa_tensor& param, const gsa_tensor& remainder, const gsa_tensor& v,
                                   const gsa_tensor* master, const gsa_tensor* exp_avg_sq) {
  if (!master && !exp_avg_sq)
    fail(GSA_INVALID_ARGUMENT, "Expected a tensor for master, exp_avg_sq or both but received neither");
  const auto check = [&](const gsa_tensor* t, int32_t dtype, const char* name) {
    if (!t) return;
    expect_dtype(*t, dtype, name);
    expect_same_shape(*t, param, name);
    expect_contiguous(*t, name);
  };
  check(&param, GSA_BFLOAT16, "param");
  check(&remainder, GSA_INT16, "remainder");
  check(&v, GSA_FLOAT32, "v");
  check(master, GSA_FLOAT32, "master");
  check(exp_avg_sq, GSA_FLOAT32, "exp_avg_sq");
  return {element_count(param),    static_cast<uint16_t*>(param.data), data_or_null<int16_t>(&remainder),
          data_or_null<float>(&v), data_or_null<float>(master),        data_or_null<float>(exp_avg_sq)};
}

inline AdamWState read_adamw_state_read(const Args& args) {
  return read_adamw_state(args.in(0), args.in(1), args.in(2), args.out_optional(0), args.out_optional(1));
}

inline AdamWState read_adamw_state_write(const Args& args) {
  return read_adamw_state(args.out(0), args.out(1), args.out(2), args.in_optional(0), args.in_optional(1));
}

}  // namespace gsa::optimizer
