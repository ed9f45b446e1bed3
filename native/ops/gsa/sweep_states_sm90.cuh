// States at the ends of walks: between the layouts that users see and the one in which the threads of a sweep
// hold them, so that a sweep has one way to load a state and one to store it. gsa_sweep_states_sm90.cu.
#pragma once

#include <memory>

#include "sweep_sm90.cuh"

namespace gsa::sm90 {

// One state of every sequence and key/value head: element (channel, slot) of sequence n and head h at
// (n * H + h) * width * slots + channel * stride_channel + slot * stride_slot. NULL: zeros, or not wanted.
struct UserState {
  const float* start;
  float* end;
  int64_t width;
  int stride_channel, stride_slot;
};
inline UserState key_state(const slot_attention::Dims& d, const float* start, float* end) {
  return {start, end, d.K, static_cast<int>(d.M), 1};
}
inline UserState value_state(const slot_attention::Dims& d, const float* start, float* end) {
  return {start, end, d.V, 1, static_cast<int>(d.V)};
}

// Which halves of 64 slots a sweep holds: of 64 slots the one that there is.
struct Halves {
  int first, number;
};
struct Conversion;

// Both states of the walks of one sweep, `in` as the first role holds it and `out` as the second. A state is
// that of `group` walks: the first of them starts with it, the others with zeros, and it ends as their sum.
class WalkStates {
 public:
  WalkStates(gsa_device& device, const slot_attention::Dims& d, const int32_t* cu_seqlens, int cluster,
             Halves halves, int group, const UserState& in, const UserState& out);
  const StateEnds& ends() const { return ends_; }
  // After the sweep. Sequences without rows hand their states through.
  void store() const;

 private:
  Conversion conversion(float* states) const;

  gsa_device& device_;
  slot_attention::Dims d_;
  const int32_t* cu_seqlens_;
  int cluster_;
  Halves halves_;
  int group_;
  UserState in_, out_;
  std::unique_ptr<cuda::Scratch> start_, end_;
  StateEnds ends_{};
};

}  // namespace gsa::sm90
