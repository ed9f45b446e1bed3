// Sums over the query heads that share a key/value head: gsa_sweep_groups_sm90.cu.
#pragma once

#include "sweep_sm90.cuh"

namespace gsa::sm90 {

struct GroupSum {
  const bf16* from;  // [rows, heads, group, width]
  bf16* to;          // [rows, heads, width]
  int64_t items;     // of `to`, 8 channels each
  int group;
  int width;  // a multiple of 8
};
void launch_group_sum(gsa_device& device, const GroupSum& a);

}  // namespace gsa::sm90
