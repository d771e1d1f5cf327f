/* SPDX-License-Identifier: BSD-3-Clause */
/* The packed virtqueue, either side, against a hostile peer. */
#define FUZZ_PACKED true
#include "vq_fuzz.h"
