/* The words of virsh: see virsh.h. */
#include "clients/cli/virsh.h"

/* Words that mean the same in "vpctl domain" stand here too: virsh has no groups. */
static const struct {
    const char *word;
    const char *ours;
} WORDS[] = {
    {"attach-device", "vpctl domain attach-disk NAME DISK"},
    {"attach-disk", "vpctl domain attach-disk NAME DISK"},
    {"attach-interface", "vpctl domain attach-interface NAME INTERFACE"},
    {"autostart", "vpctl domain autostart NAME on"},
    {"blkdeviotune", "vpctl domain throttle NAME TARGET LIMIT..."},
    {"capabilities", "vpctl host"},
    {"change-media", "vpctl domain change-media NAME TARGET MEDIUM"},
    {"cpu-stats", "vpctl domain stats NAME"},
    {"create", "vpctl domain create NAME --start"},
    {"define", "vpctl domain create --from-file FILE"},
    {"desc", "vpctl domain update NAME --description TEXT"},
    {"destroy", "vpctl domain poweroff NAME"},
    {"detach-device", "vpctl domain detach NAME DEVICE"},
    {"detach-disk", "vpctl domain detach NAME DEVICE"},
    {"detach-interface", "vpctl domain detach NAME DEVICE"},
    {"domblklist", "vpctl domain show NAME"},
    {"domcapabilities", "vpctl host"},
    {"domfsfreeze", "vpctl guest freeze NAME"},
    {"domfsinfo", "vpctl guest info NAME"},
    {"domfsthaw", "vpctl guest thaw NAME"},
    {"domfstrim", "vpctl guest trim NAME"},
    {"domhostname", "vpctl guest info NAME --output name"},
    {"domid", "vpctl domain show NAME"},
    {"domifaddr", "vpctl guest addresses NAME"},
    {"domiflist", "vpctl domain show NAME"},
    {"dominfo", "vpctl domain show NAME"},
    {"domblkstat", "vpctl domain stats NAME"},
    {"domifstat", "vpctl domain stats NAME"},
    {"domjobabort", "vpctl operation cancel UID"},
    {"domjobinfo", "vpctl operation list --active"},
    {"dommemstat", "vpctl domain stats NAME"},
    {"domname", "vpctl domain show UID"},
    {"domstate", "vpctl domain show NAME"},
    {"domstats", "vpctl domain stats"},
    {"domtime", "vpctl guest time NAME"},
    {"domuuid", "vpctl domain show NAME"},
    {"dumpxml", "vpctl domain show NAME --output yaml"},
    {"edit", "vpctl domain update NAME"},
    {"eject", "vpctl domain eject NAME TARGET"},
    {"event", "vpctl events --follow"},
    {"guestinfo", "vpctl guest info NAME"},
    {"hostname", "vpctl host --output name"},
    {"list", "vpctl domain list"},
    {"managedsave", "vpctl domain save NAME"},
    {"managedsave-remove", "vpctl domain discard-saved NAME"},
    {"nodeinfo", "vpctl host"},
    {"reboot", "vpctl domain reboot NAME"},
    {"reset", "vpctl domain reset NAME"},
    {"restore", "vpctl domain restore NAME --file FILE"},
    {"resume", "vpctl domain resume NAME"},
    {"save", "vpctl domain save NAME --file FILE"},
    {"set-user-password", "vpctl guest set-password NAME USER"},
    {"setmem", "vpctl domain update NAME --memory SIZE"},
    {"setvcpus", "vpctl domain update NAME --vcpus N"},
    {"shutdown", "vpctl domain shutdown NAME"},
    {"start", "vpctl domain start NAME"},
    {"suspend", "vpctl domain pause NAME"},
    {"undefine", "vpctl domain delete NAME"},
    {"uri", "vpctl daemon"},
    {"vol-info", "vpctl image inspect PATH"},
    {"vol-list", "vpctl image list FOLDER"},
};

const char *vp_virsh_translate(const char *word)
{
    for (gsize i = 0; i < G_N_ELEMENTS(WORDS); i++) {
        if (g_str_equal(WORDS[i].word, word))
            return WORDS[i].ours;
    }
    return NULL;
}
