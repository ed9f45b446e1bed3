// How many roles a sweep has, and the registers of each.
#pragma once

#include "sweep_sm90.cuh"

namespace gsa::sm90 {

// What a slot role does with a block of rows: all of it, or one of two parts, each a role then: what the
// other roles wait for before they read the rows, and what is left to do when they have.
enum class SlotPart { both, starts, ends };

// One slot role does the blocks of 16 rows of a step one after the other while the others wait, most of all
// at narrow widths, which have several. So there are two, but where _out_ is what the others wait for (dv of
// four blocks) and with 128 slots. In the layer form the fourth role is another (sweep_activate_sm90.cuh).
// `kHalves`: of the slots, in one cluster.
template <bool kLayer, int kHalves>
constexpr bool kSplitForward = !kLayer && kHalves == 1;
template <bool kLayer, bool kKeySide, int kCluster>
constexpr bool kSplitReverse = !kLayer && (kKeySide || kCluster < 4);
// Forward the first of two slot roles takes the pairs of rows from the in role.
template <bool kLayer, bool kBackward, int kHalves>
constexpr bool kPairsBeside = !kBackward && kSplitForward<kLayer, kHalves>;

template <bool kFourRoles>
constexpr int kThreadsOf = kSweepThreads + (kFourRoles ? kRole : 0);

// Registers of a thread. Four roles fill a multiprocessor with 512 for one thread of each, and start with as
// many each. README-sweeps.md has what other shares gave.
struct RoleRegisters {
  int beside, starts, ends;  // `beside`: of in and out
};
constexpr RoleRegisters forward_registers(bool backward, int cluster) {
  if (backward) return cluster < 4 ? RoleRegisters{144, 80, 144} : RoleRegisters{160, 72, 120};
  return cluster < 4 ? RoleRegisters{160, 72, 120} : RoleRegisters{152, 88, 120};
}
constexpr RoleRegisters reverse_registers(int cluster) {
  return cluster < 4 ? RoleRegisters{144, 112, 112} : RoleRegisters{168, 88, 88};
}
constexpr int kActivateRegisters = 32, kBesideActivateRegisters = 160;
template <int kRegisters>
__device__ __forceinline__ void take_registers() {
  if constexpr (kRegisters > 128)
    more_registers<kRegisters>();
  else
    fewer_registers<kRegisters>();
}

}  // namespace gsa::sm90
