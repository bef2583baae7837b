/* The images that libvirt 9.0 or qemu-img 7.2 judge wrongly (each made and seen with them), and what is right. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "tests/unit/storage/images.h"

#define QCOW2 PB_IMAGE_FORMAT_QCOW2
#define RAW PB_IMAGE_FORMAT_RAW
#define UNDECLARED PB_IMAGE_FORMAT_UNSPECIFIED
#define CODE(name) PB_FINDING_CODE_##name
#define SAFE PB_FINDING_CODE_UNSPECIFIED

typedef struct Peer {
    const char *what;
    const char *make; /* shell; the image is `i` */
    PbImageFormat declared;
    PbFindingCode code;   /* of the refusal, or SAFE */
    guint32 depth;        /* of the refused layer, or the number of layers */
    PbFindingCode told;   /* a finding that has to be there, or 0 */
    PbImageFormat format; /* of the last layer, if it is safe */
} Peer;

/* The overlay `i` of `b` that does not record its format. */
#define UNDECLARED_OVERLAY                                                                                             \
    "qemu-img create -q -u -f qcow2 -F raw -b b i 4M; printf '\\021' | dd of=i bs=1 seek=112 conv=notrunc "            \
    "status=none;"

static const Peer peers[] = {
    {"undeclared backing, raw", UNDECLARED_OVERLAY "truncate -s 4M b", QCOW2, SAFE, 2, CODE(PROBE_USED), RAW},
    {"undeclared backing, qcow2 without backing", UNDECLARED_OVERLAY "qemu-img create -q -f qcow2 b 4M", QCOW2, SAFE, 2,
     CODE(PROBE_USED), QCOW2},
    {"undeclared backing, qcow2 with backing",
     UNDECLARED_OVERLAY "truncate -s 4M c; qemu-img create -q -f qcow2 -F raw -b c b", QCOW2,
     CODE(PROBE_REFUSED_BACKING_FILE), 1, CODE(FORMAT_NOT_DECLARED), 0},
    {"undeclared backing, qcow2 with external data file",
     UNDECLARED_OVERLAY "qemu-img create -q -f qcow2 -o data_file=$PWD/d b 4M", QCOW2, CODE(PROBE_REFUSED_DATA_FILE), 1,
     CODE(FORMAT_NOT_DECLARED), 0},
    {"backing declared raw, is qcow2",
     "qemu-img create -q -f qcow2 b 4M; qemu-img create -q -u -f qcow2 -F raw -b b i 4M", QCOW2, SAFE, 2,
     CODE(FORMAT_MISMATCH), RAW},
    {"backing declared qcow2, is raw", "truncate -s 4M b; qemu-img create -q -u -f qcow2 -F qcow2 -b b i 4M", QCOW2,
     CODE(FORMAT_MISMATCH), 1, 0, 0},
    {"itself as backing", "qemu-img create -q -u -f qcow2 -F qcow2 -b i j 4M; mv j i", QCOW2, CODE(LOOP), 1, 0, 0},
    {"two in a loop",
     "qemu-img create -q -u -f qcow2 -F qcow2 -b b i 4M; qemu-img create -q -u -f qcow2 -F qcow2 -b i b 4M", QCOW2,
     CODE(LOOP), 2, 0, 0},
    {"qcow2 that is also an ISO",
     "qemu-img create -q -f qcow2 i 4M; printf '\\001CD001' | dd of=i bs=1 seek=32768 conv=notrunc status=none",
     UNDECLARED, CODE(AMBIGUOUS_FORMAT), 0, 0, 0},
    {"the same, declared",
     "qemu-img create -q -f qcow2 i 4M; printf '\\001CD001' | dd of=i bs=1 seek=32768 conv=notrunc status=none", QCOW2,
     SAFE, 1, 0, QCOW2},
    {"qcow2 of version 9",
     "qemu-img create -q -f qcow2 i 4M; printf '\\011' | dd of=i bs=1 seek=7 conv=notrunc status=none", UNDECLARED,
     CODE(UNKNOWN_INCOMPATIBLE_FEATURE), 0, 0, 0},
    {"an unknown incompatible bit",
     "qemu-img create -q -f qcow2 i 4M; printf '\\100' | dd of=i bs=1 seek=78 conv=notrunc status=none", QCOW2,
     CODE(UNKNOWN_INCOMPATIBLE_FEATURE), 0, 0, 0},
    {"qcow2 cut at 40 bytes", "qemu-img create -q -f qcow2 i 4M; truncate -s 40 i", UNDECLARED, CODE(TRUNCATED), 0, 0,
     0},
    {"a backing name beyond 33 KB of the first cluster",
     "truncate -s 4M b; qemu-img create -q -u -f qcow2 -F raw -b b i 4M; printf b | dd of=i bs=1 seek=40000 "
     "conv=notrunc status=none;"
     "printf '\\000\\000\\000\\000\\000\\000\\234\\100' | dd of=i bs=1 seek=8 conv=notrunc status=none",
     QCOW2, SAFE, 2, 0, RAW},
    {"vhdx", "qemu-img create -q -f vhdx i 8M", UNDECLARED, SAFE, 1, CODE(PROBE_USED), PB_IMAGE_FORMAT_VHDX},
    {"fixed VHD, a footer alone", "qemu-img create -q -f vpc -o subformat=fixed i 8M", UNDECLARED, SAFE, 1,
     CODE(PROBE_USED), PB_IMAGE_FORMAT_VPC},
    {"descriptor-only vmdk", "qemu-img create -q -f vmdk -o subformat=monolithicFlat i 8M", UNDECLARED,
     CODE(PROBE_REFUSED_OTHER_FILE), 0, 0, 0},
    {"parallels", "qemu-img create -q -f parallels i 8M", UNDECLARED, SAFE, 1, CODE(PROBE_USED),
     PB_IMAGE_FORMAT_PARALLELS},
};

static void outcomes(void **state)
{
    (void)state;
    for (gsize i = 0; i < G_N_ELEMENTS(peers); i++) {
        const Peer *peer = &peers[i];
        must_run("rm -f i b c d j i-flat.vmdk; %s", peer->make);
        g_autoptr(VpChain) chain = walk("i", peer->declared);
        print_message("%s\n", peer->what);
        if (peer->code != SAFE) {
            assert_refused(chain, peer->code, peer->depth);
        } else {
            assert_safe(chain, peer->depth);
            assert_int_equal(file_at(chain, peer->depth - 1)->layer->format, peer->format);
        }
        assert_true(peer->told == 0 || find(chain, peer->told));
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {cmocka_unit_test(outcomes)};
    return cmocka_run_group_tests(tests, images_setup, images_teardown);
}
