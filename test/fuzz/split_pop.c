/* SPDX-License-Identifier: BSD-3-Clause */
/* The split virtqueue, either side, against a hostile peer. */
#define FUZZ_PACKED false
#include "vq_fuzz.h"
