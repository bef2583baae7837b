/*
 * The driver `qemu`: a process a domain, driven over QMP on the daemon's event loop. Domains outlive the daemon.
 *
 *     driver.c        the operations, called on worker threads; the table of domains
 *     start.c         the blocking part of a start: chains, command line, process
 *     domain.c        what happens to a running domain, on the loop's thread
 *     op.c            one task in the hands of the loop: its deadline and its cancellation
 *     qmp.c           the QMP client
 *     process.c       making, finding and killing the process
 *     folder.c        the domain's folder: the record of its process, its QMP socket, its log
 *     spec*.c         defaults and checks of a spec; layout.c: where its devices sit
 *     command_line.c  the arguments, a pure function; arg_*.c: those of a kind of device; before_run.c: what is told over QMP instead
 *     equipment.c     what a process is given besides its disks; helpers.c: tap devices, swtpm
 *     contain.h       how a process is kept apart; confine.c: what the child gives up before its exec
 *     remote.c        layers of images that a server has
 *     firmware.c      the UEFI that is installed here
 *     capabilities.c  what this host's QEMU and KVM can do; known.c: what QEMU tells of itself
 */
#pragma once

#include "drivers/driver.h"

extern const VpDriverOps vp_qemu_driver;
