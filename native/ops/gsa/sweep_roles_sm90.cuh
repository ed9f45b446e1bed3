// How many roles a sweep has, and the registers of each.
#pragma once

#include "sweep_sm90.cuh"

namespace gsa::sm90 {

// What a slot role does with a block of rows: all of it, or one of two parts, each a role then: what the
// other roles wait for before they read the rows, and what is left to do when they have.
enum class SlotPart { both, starts, ends };

// Narrow widths have several blocks of 16 rows a step in each block of threads, and one slot role does one
// after the other while the others wait; forward it is what the others wait for at all widths. In the layer
// form the fourth role is another (sweep_activate_sm90.cuh). `kHalves`: of the slots, in one cluster.
template <bool kLayer, bool kBackward, int kHalves, int kCluster>
constexpr bool kSplitSlots = !kLayer && (!kBackward || (kHalves == 1 && kCluster < 4));
// Forward the first of two slot roles takes the pairs of rows from the in role.
template <bool kLayer, bool kBackward, int kHalves, int kCluster>
constexpr bool kPairsBeside = !kBackward && kSplitSlots<kLayer, kBackward, kHalves, kCluster>;
template <bool kLayer, bool kBackward, int kHalves, int kCluster>
constexpr int kThreadsOf =
    kSweepThreads + (kLayer || kSplitSlots<kLayer, kBackward, kHalves, kCluster> ? kRole : 0);

// Registers of a thread. Four roles fill a multiprocessor with 512 for one thread of each, and start with as
// many each. README-sweeps.md has what other shares gave.
struct RoleRegisters {
  int beside, starts, ends;  // `beside`: of in and out
};
constexpr RoleRegisters kForwardRegisters{160, 72, 120}, kBackwardRegisters{144, 80, 144},
    kReverseRegisters{144, 112, 112};
constexpr int kActivateRegisters = 32, kBesideActivateRegisters = 160;
template <int kRegisters>
__device__ __forceinline__ void take_registers() {
  if constexpr (kRegisters > 128)
    more_registers<kRegisters>();
  else
    fewer_registers<kRegisters>();
}

}  // namespace gsa::sm90
