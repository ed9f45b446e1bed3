// In place of native/cuda/device.h.
#pragma once

#include "../abi/args.h"

struct gsa_device {
  int multiprocessors = 132;
};
