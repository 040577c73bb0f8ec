#pragma once

// What kernels are written against: index variables, warp and block collectives, matrix
// instructions, asynchronous copies and launches.  Two implementations: the card's, and an
// emulation on the host that runs every kernel as it stands where there is no card, for tests.
// Kernel code includes this file alone.
#if defined(__CUDACC__)
#include "cuda/platform_device.cuh"
#include "cuda/warpgroup_device.cuh"
#else
#include "cuda/emulation/platform_host.h"
#endif
