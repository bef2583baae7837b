/* The drivers that are built in. A new hypervisor is one line here. */
#include "drivers/driver.h"
#include "drivers/qemu/qemu.h"
#include "drivers/test/test_driver.h"

const VpDriverOps *const vp_driver_table[] = {
    &vp_qemu_driver,
    &vp_test_driver,
    NULL,
};
