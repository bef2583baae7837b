/*
 * What the daemon itself gives up at its start, as nothing of it is needed: capabilities, new rights by what it executes, system calls. main.c calls it before
 * the first thread is made; threads, and programs that the daemon starts, have no more than is left here. docs/containment.md lists it.
 */
#pragma once

#include "base/error.h"

/* INTERNAL, reason SANDBOX, if the kernel does not take it. */
VpError *vp_sandbox_enter(void);
