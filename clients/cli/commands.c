/* The table of commands; those of one group stand together. */
#include "clients/cli/admin.h"
#include "clients/cli/auth.h"
#include "clients/cli/cli.h"
#include "clients/cli/completion.h"
#include "clients/cli/domain.h"
#include "clients/cli/events.h"
#include "clients/cli/guest.h"
#include "clients/cli/host.h"
#include "clients/cli/image.h"
#include "clients/cli/operation.h"
#include "clients/cli/pki.h"
#include "clients/cli/secret.h"

#define NAMES "NAME..."
#define ANY 1000

const VpCommand vp_commands[] = {
    {"domain", "create", "[NAME]", 0, 1, "Create a domain",
     "  vpctl domain create web --memory 1G --vcpus 2 --disk web.qcow2 --interface user\n"
     "  vpctl domain create web --disk web.qcow2,format=qcow2,bus=scsi --disk tools.iso,format=raw,readonly --start\n"
     "  vpctl domain create --from-file web.yaml\n"
     "  vpctl domain show web -o yaml | vpctl domain create web2 --from-file -   (take the uid out first)\n",
     vp_domain_create},
    {"domain", "list", "[PATTERN...]", 0, ANY, "List domains",
     "  vpctl domain list --output wide\n"
     "  vpctl domain list 'web*' --state running --label tier=front\n"
     "  vpctl domain list -o name\n",
     vp_domain_list},
    {"domain", "show", NAMES, 1, ANY, "Show domains, by name or uid",
     "  vpctl domain show web\n  vpctl domain show web -o yaml\n", vp_domain_show},
    {"domain", "console", "NAME", 1, 1, "Connect the terminal with a console; Ctrl-] ends it",
     "  vpctl domain console web\n  vpctl domain console web --scrollback 4096 --force\n"
     "  vpctl domain console web --read-only\n",
     vp_domain_console},
    {"domain", "screen", "NAME", 1, 1, "Let a viewer on this host connect with a domain's screen; Ctrl-C ends it",
     "  vpctl domain screen web\n  vpctl domain screen web --exec 'vncviewer {}'\n"
     "  vpctl domain screen web --device spice --exec 'remote-viewer spice+unix://{}'\n"
     "  vpctl domain screen web --port 0\n",
     vp_domain_screen},
    {"domain", "screenshot", "NAME FILE", 2, 2, "Save a picture of a domain's screen; FILE may be -",
     "  vpctl domain screenshot web web.png\n  vpctl domain screenshot web --format ppm - | pnmtojpeg >web.jpg\n",
     vp_domain_screenshot},
    {"domain", "stats", "[NAME...]", 0, ANY, "Show what domains consume: CPU, memory, disks, interfaces",
     "  vpctl domain stats\n  vpctl domain stats web -o json\n  vpctl domain stats --watch --interval 2s 'web*'\n",
     vp_domain_stats},
    {"domain", "start", NAMES, 1, ANY, "Prove the images of domains and start them",
     "  vpctl domain start web db --timeout 30s\n  vpctl domain start web --paused\n"
     "  vpctl domain start web --discard-saved\n",
     vp_domain_verb},
    {"domain", "shutdown", NAMES, 1, ANY, "Ask the guests to shut down",
     "  vpctl domain shutdown web\n  vpctl domain shutdown web --fallback 60s --wait\n"
     "  vpctl domain shutdown web --mode acpi\n",
     vp_domain_verb},
    {"domain", "poweroff", NAMES, 1, ANY, "End domains at once, as if the cord were pulled; works on hung ones",
     "  vpctl domain poweroff web\n", vp_domain_verb},
    {"domain", "reboot", NAMES, 1, ANY, "Ask the guests to restart",
     "  vpctl domain reboot web\n  vpctl domain reboot web --mode agent --fallback 2m\n", vp_domain_verb},
    {"domain", "reset", NAMES, 1, ANY, "Reset machines at once", "  vpctl domain reset web\n", vp_domain_verb},
    {"domain", "pause", NAMES, 1, ANY, "Halt the CPUs of domains", "  vpctl domain pause web\n", vp_domain_verb},
    {"domain", "resume", NAMES, 1, ANY, "Let the CPUs run again", "  vpctl domain resume web\n", vp_domain_verb},
    {"domain", "save", NAMES, 1, ANY, "Write the memory of domains to a file and end them; a start goes on from there",
     "  vpctl domain save web\n  vpctl domain save web --file /srv/saved/web.save\n", vp_domain_save},
    {"domain", "restore", NAMES, 1, ANY, "Go on from where domains were saved",
     "  vpctl domain restore web\n  vpctl domain restore web --file /srv/saved/web.save --paused\n", vp_domain_save},
    {"domain", "discard-saved", NAMES, 1, ANY, "Give up what was saved of domains: they boot at their next start",
     "  vpctl domain discard-saved web\n", vp_domain_discard_saved},
    {"domain", "autostart", "NAME on|off", 2, 2, "Start a domain with the host, or not",
     "  vpctl domain autostart web on --order 10\n  vpctl domain autostart web off\n", vp_domain_autostart},
    {"domain", "update", "NAME", 1, 1, "Change a domain",
     "  vpctl domain update web --vcpus 4 --memory 2G\n"
     "  vpctl domain update web --memory 1G --scope live --timeout 30s\n"
     "  vpctl domain update web --disk web.qcow2,format=qcow2 --disk more.qcow2,format=qcow2\n"
     "  vpctl domain update web --label tier=front --remove-label old\n",
     vp_domain_update},
    {"domain", "attach-disk", "NAME DISK", 2, 2, "Add a disk to a domain, while it runs too",
     "  vpctl domain attach-disk web data.qcow2,format=qcow2\n"
     "  vpctl domain attach-disk web data.qcow2,format=qcow2,target=vdx,bus=scsi --scope live\n",
     vp_domain_attach},
    {"domain", "attach-interface", "NAME INTERFACE", 2, 2, "Add a network interface to a domain, while it runs too",
     "  vpctl domain attach-interface web user\n  vpctl domain attach-interface web bridge,bridge=br0,queues=2\n",
     vp_domain_attach},
    {"domain", "detach", "NAME DEVICE", 2, 2, "Take a disk (by target) or an interface (by MAC address) away",
     "  vpctl domain detach web vdb --timeout 30s\n  vpctl domain detach web 52:54:00:12:34:56 --scope live\n",
     vp_domain_detach},
    {"domain", "change-media", "NAME TARGET MEDIUM", 3, 3, "Put another medium into a cd-rom drive",
     "  vpctl domain change-media web sr0 tools.iso,format=raw\n"
     "  vpctl domain change-media web sr0 tools.iso,format=raw --force --scope live\n",
     vp_domain_medium},
    {"domain", "eject", "NAME TARGET", 2, 2, "Take the medium out of a cd-rom drive",
     "  vpctl domain eject web sr0\n  vpctl domain eject web sr0 --force\n", vp_domain_medium},
    {"domain", "throttle", "NAME TARGET LIMIT...", 3, ANY, "Limit the speed of a disk, or no longer",
     "  vpctl domain throttle web vda bytes=50M requests=2000\n"
     "  vpctl domain throttle web vda write-bytes=10M group=slow --scope live\n"
     "  vpctl domain throttle web vda none\n",
     vp_domain_throttle},
    {"domain", "delete", NAMES, 1, ANY, "Delete domains that are shut off; their images stay",
     "  vpctl domain delete web\n  vpctl domain delete web --discard-saved\n", vp_domain_delete},

    {"guest", "ping", "NAME", 1, 1, "Tell whether the agent in a guest answers", "  vpctl guest ping web\n",
     vp_guest_ping},
    {"guest", "exec", "NAME -- PROGRAM [ARGUMENT...]", 2, ANY,
     "Run a program in a guest; the exit code is the program's",
     "  vpctl guest exec web -- journalctl -b -n 20\n"
     "  vpctl guest exec web --chdir /srv -- /bin/sh -c 'ls | wc -l'\n"
     "  tar c conf.d | vpctl guest exec web -- tar x -C /etc\n",
     vp_guest_exec},
    {"guest", "read", "NAME PATH", 2, 2, "Read a file of a guest",
     "  vpctl guest read web /var/log/syslog\n  vpctl guest read web /etc/hosts --to hosts\n", vp_guest_read},
    {"guest", "write", "NAME PATH", 2, 2, "Write a file of a guest",
     "  vpctl guest write web /etc/motd --from motd\n  date | vpctl guest write web /var/log/visits --append\n",
     vp_guest_write},
    {"guest", "freeze", "NAME", 1, 1, "Freeze the file systems of a guest, for a copy of its disks",
     "  vpctl guest freeze web --thaw-after 30s\n", vp_guest_freeze},
    {"guest", "thaw", "NAME", 1, 1, "Thaw them", "  vpctl guest thaw web\n", vp_guest_thaw},
    {"guest", "trim", "NAME", 1, 1, "Give unused blocks of a guest's file systems back", "  vpctl guest trim web\n",
     vp_guest_trim},
    {"guest", "addresses", "NAME", 1, 1, "List the network interfaces of a guest, and their addresses",
     "  vpctl guest addresses web\n  ssh $(vpctl guest addresses web -o name | grep -v ^127 | head -1)\n",
     vp_guest_addresses},
    {"guest", "users", "NAME", 1, 1, "List who is logged in to a guest", "  vpctl guest users web\n", vp_guest_users},
    {"guest", "info", "NAME", 1, 1, "Show a guest's system and its file systems", "  vpctl guest info web\n",
     vp_guest_info},
    {"guest", "time", "NAME", 1, 1, "Show a guest's clock", "  vpctl guest time web\n", vp_guest_time},
    {"guest", "set-time", "NAME [TIME]", 1, 2, "Set a guest's clock, to the host's time or another",
     "  vpctl guest set-time web\n  vpctl guest set-time web 2026-01-02T03:04:05Z\n", vp_guest_set_time},
    {"guest", "set-password", "NAME USER", 2, 2, "Set the password of a user of a guest",
     "  vpctl guest set-password web root\n"
     "  mkpasswd -m sha-512 | vpctl guest set-password web root --hashed\n",
     vp_guest_set_password},

    {"image", "inspect", "PATH", 1, 1, "Prove an image's backing chain (exit code 1: it is not safe to open)",
     "  vpctl image inspect overlay.qcow2\n  vpctl image inspect disk.img --format raw\n  vpctl image inspect "
     "overlay.qcow2 -o json\n",
     vp_image_inspect},
    {"image", "list", "FOLDER", 1, 1, "Inspect every image below a folder",
     "  vpctl image list /srv/images\n  vpctl image list /srv/images --format qcow2 --unsafe\n", vp_image_list},
    {"image", "graph", "PATH...", 1, ANY, "Draw images or folders and what they name, as SVG",
     "  vpctl image graph overlay.qcow2 --format qcow2 --file chain.svg\n  vpctl image graph /srv/images --format "
     "qcow2 >images.svg\n",
     vp_image_graph},
    {"image", "probe", "PATH", 1, 1, "Tell what one file is, from its header alone", "  vpctl image probe disk.img\n",
     vp_image_probe},
    {"image", "record-backing-format", "PATH", 1, 1, "Write the missing format of the backing file",
     "  vpctl image record-backing-format overlay.qcow2 --dry-run\n"
     "  vpctl image record-backing-format overlay.qcow2 --backing-format qcow2\n",
     vp_image_record},
    {"image", "explain", "[CODE]", 0, 1, "Explain a finding: its cause, its danger, its remedy",
     "  vpctl image explain\n  vpctl image explain PROBE_REFUSED_BACKING_FILE\n", vp_image_explain},

    {"operation", "list", "", 0, 0, "List slow work, the newest first", "  vpctl operation list --active\n",
     vp_operation_list},
    {"operation", "show", "UID", 1, 1, "Show an operation",
     "  vpctl operation show 0ca2f1de-5f2e-4b6e-9a3a-7d9d1c1f0e55\n", vp_operation_show},
    {"operation", "cancel", "UID", 1, 1, "Ask an operation to end early",
     "  vpctl operation cancel $(vpctl operation list --active --output name | head -1)\n", vp_operation_cancel},
    {"operation", "watch", "UID", 1, 1, "Follow an operation to its end (exit code 1: it failed)",
     "  vpctl domain start web --no-wait\n"
     "  vpctl operation watch 0ca2f1de-5f2e-4b6e-9a3a-7d9d1c1f0e55\n",
     vp_operation_watch},

    {"admin", "connections", "", 0, 0, "List who is connected to the daemon", "  vpctl admin connections\n",
     vp_admin_connections},
    {"admin", "close", "ID...", 1, ANY, "Close connections at once; what they have asked for goes on",
     "  vpctl admin close 7\n", vp_admin_close},
    {"admin", "log-level", "LEVEL", 1, 1, "Set how much the daemon logs: error, warning, info or debug",
     "  vpctl admin log-level debug --for 10m\n", vp_admin_log_level},
    {"admin", "backup", "FILE", 1, 1, "Copy the daemon's store, as of one moment, while it goes on",
     "  vpctl admin backup /backup/store.db\n", vp_admin_backup},
    {"admin", "restore", "FILE", 1, 1, "Put a backup in the place of a store that no daemon uses",
     "  vpctl admin restore /backup/store.db --state-dir /var/lib/virtplane\n", vp_admin_restore},
    {"admin", "check", "", 0, 0, "Look for damage in all of the store (exit code 1: there is some)",
     "  vpctl admin check\n  vpctl admin check --state-dir /var/lib/virtplane\n", vp_admin_check},

    {"secret", "create", "NAME", 1, 1, "Create a secret; its value is set afterwards",
     "  vpctl secret create web-disk --usage image --label tenant=blue\n", vp_secret_create},
    {"secret", "set", "NAME", 1, 1, "Set the value of a secret, from a file or the standard input",
     "  vpctl secret set web-disk --file passphrase\n  pass show web-disk | vpctl secret set web-disk\n",
     vp_secret_set},
    {"secret", "list", "", 0, 0, "List secrets, without their values", "  vpctl secret list\n", vp_secret_list},
    {"secret", "delete", NAMES, 1, ANY, "Delete secrets and their values", "  vpctl secret delete web-disk\n",
     vp_secret_delete},

    {"auth", "whoami", "", 0, 0, "Show who the daemon takes you for", "  vpctl auth whoami\n", vp_auth_whoami},
    {"auth", "can-i", "METHOD [RESOURCE]", 1, 2,
     "Tell whether a method may be called, on a resource or at all (exit code 1: no)",
     "  vpctl auth can-i StartDomain web\n"
     "  vpctl auth can-i DomainService/DeleteDomain web --as cn:alice --explain\n",
     vp_auth_can_i},

    {"pki", "init", "", 0, 0, "Make a small CA, for daemons that are reached by TCP", "  vpctl pki init --dir pki\n",
     vp_pki_init},
    {"pki", "issue", "NAME", 1, 1, "Make a key and a certificate, for a daemon or (without --server) for a client",
     "  vpctl pki issue host1 --server host1.example.org --server 192.0.2.1\n  vpctl pki issue alice\n", vp_pki_issue},
    {"pki", "revoke", "NAME", 1, 1, "Withdraw a certificate, by its name or file", "  vpctl pki revoke alice\n",
     vp_pki_revoke},
    {"pki", "renew-list", "", 0, 0, "Sign the list of withdrawn certificates anew, before it is too old",
     "  vpctl pki renew-list\n", vp_pki_renew_list},

    {NULL, "events", "", 0, 0, "Show the journal; with --follow, as it grows",
     "  vpctl events\n"
     "  vpctl events --follow --filter resource=domain --filter name=web\n"
     "  vpctl events --follow --from 1 -o json\n"
     "  vpctl events --follow --cursor /var/lib/me/cursor -o json\n",
     vp_events},
    {NULL, "host", "", 0, 0, "Describe the host and what its drivers can do", "  vpctl host -o json\n", vp_host},
    {NULL, "daemon", "", 0, 0, "Describe the daemon", "  vpctl daemon\n", vp_daemon},
    {NULL, "version", "", 0, 0, "Show the versions of vpctl and of the daemon", "  vpctl version\n", vp_version},
    {NULL, "completion", "SHELL", 1, 1, "Print the completion script of bash or zsh",
     "  source <(vpctl completion bash)\n  vpctl completion zsh >~/.zfunc/_vpctl\n", vp_completion},
    {NULL, NULL, NULL, 0, 0, NULL, NULL, NULL},
};

gboolean vp_cli_is_group(const char *word)
{
    for (const VpCommand *command = vp_commands; command->name; command++) {
        if (g_strcmp0(command->group, word) == 0)
            return TRUE;
    }
    return FALSE;
}

const VpCommand *vp_cli_find_command(const char *group, const char *name)
{
    for (const VpCommand *command = vp_commands; command->name; command++) {
        if (g_strcmp0(command->group, group) == 0 && g_str_equal(command->name, name))
            return command;
    }
    return NULL;
}
