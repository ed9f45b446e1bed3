// How many roles a sweep has, and the registers of each.
#pragma once

#include "sweep_sm90.cuh"

namespace gsa::sm90 {

// What a slot role does with a block of rows: all of it, or one of two parts, each a role then: what the
// other roles wait for before they read the rows, and what is left to do when they have.
enum class SlotPart { both, starts, ends };

// One slot role does the blocks of 16 rows of a step one after the other while the others wait, most of all
// at narrow widths, which have several. So there are two, but where _in_ is what the others wait for (dv of
// four blocks), in the direction of time with 128 slots, and in the layer form of four blocks, where the
// fourth role makes silu of the rows and nothing else; at its other widths the first slot role does that
// (sweep_activate_sm90.cuh). `kHalves`: of the slots, in one cluster.
template <bool kLayer, int kHalves, int kCluster>
constexpr bool kSplitForward = kLayer ? kCluster < 4 : kHalves == 1;
template <bool kLayer, bool kKeySide, int kCluster>
constexpr bool kSplitReverse = kCluster < 4 || (kKeySide && !kLayer);
// Forward the first of two slot roles takes the pairs of rows from the in role.
template <bool kLayer, bool kBackward, int kHalves, int kCluster>
constexpr bool kPairsBeside = !kBackward && kSplitForward<kLayer, kHalves, kCluster>;

template <bool kFourRoles>
constexpr int kThreadsOf = kSweepThreads + (kFourRoles ? kRole : 0);

// Registers of a thread. Four roles fill a multiprocessor with 512 for one thread of each, and start with as
// many each. README-sweeps.md has what other shares gave.
struct RoleRegisters {
  int beside, starts, ends;  // `beside`: of in and out
};
constexpr RoleRegisters forward_registers(bool layer, bool backward, int cluster) {
  if (layer && backward) return {160, 64, 128};
  if (layer && cluster == 2) return {152, 80, 128};
  if (backward) return cluster < 4 ? RoleRegisters{144, 80, 144} : RoleRegisters{160, 72, 120};
  return cluster < 4 ? RoleRegisters{160, 72, 120} : RoleRegisters{152, 88, 120};
}
constexpr RoleRegisters reverse_registers(bool layer, int cluster) {
  if (layer) return {160, 96, 96};
  return cluster < 4 ? RoleRegisters{144, 112, 112} : RoleRegisters{168, 88, 88};
}
// Those of the role that makes silu and nothing else, and of the other three then.
constexpr int kActivateRegisters = 32, kBesideActivateRegisters = 160;
template <int kRegisters>
__device__ __forceinline__ void take_registers() {
  if constexpr (kRegisters > 128)
    more_registers<kRegisters>();
  else
    fewer_registers<kRegisters>();
}

}  // namespace gsa::sm90
