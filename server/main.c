/* virtplaned: options, signals, and the line that says it is ready. */
#include <errno.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/resource.h>
#include <systemd/sd-daemon.h>

#include "base/log.h"
#include "server/daemon.h"
#include "server/sandbox.h"
#include "server/services/services.h"

typedef struct Options {
    char *config;
    char *state_dir;
    char **listen;
    gboolean insecure_tcp;
    gboolean debug;
    gboolean version;
} Options;

static void options_clear(Options *options)
{
    g_free(options->config);
    g_free(options->state_dir);
    g_strfreev(options->listen);
}
G_DEFINE_AUTO_CLEANUP_CLEAR_FUNC(Options, options_clear)

/* FALSE: the program ends with *ret_code. */
static gboolean parse(int argc, char **argv, Options *options, int *ret_code)
{
    const GOptionEntry entries[] = {
        {"config", 'c', 0, G_OPTION_ARG_FILENAME, &options->config, "Read settings from FILE", "FILE"},
        {"state-dir", 's', 0, G_OPTION_ARG_FILENAME, &options->state_dir, "Keep everything in DIR", "DIR"},
        {"listen", 'l', 0, G_OPTION_ARG_STRING_ARRAY, &options->listen,
         "Answer on ADDRESS: unix:PATH or HOST:PORT (with TLS); may be given again", "ADDRESS"},
        {"insecure-tcp", 0, 0, G_OPTION_ARG_NONE, &options->insecure_tcp,
         "Serve HOST:PORT of the loopback without TLS: every user of this host can then do everything", NULL},
        {"debug", 0, 0, G_OPTION_ARG_NONE, &options->debug, "Log more", NULL},
        {"version", 0, 0, G_OPTION_ARG_NONE, &options->version, "Print the version and end", NULL},
        {0},
    };
    g_autoptr(GOptionContext) context = g_option_context_new("- the virtplane daemon");
    g_autoptr(GError) error = NULL;

    g_option_context_set_description(
        context,
        "Root keeps state in /var/lib/virtplane and answers on unix:/run/virtplane/virtplaned.sock;\n"
        "others use $XDG_STATE_HOME/virtplane and $XDG_RUNTIME_DIR/virtplane.\n"
        "SIGTERM stops the daemon; running domains go on. SIGHUP has it read policy and certificates again.\n");
    g_option_context_add_main_entries(context, entries, NULL);
    if (!g_option_context_parse(context, &argc, &argv, &error) || argc > 1) {
        fprintf(stderr, "virtplaned: %s\nSee virtplaned --help.\n", error ? error->message : "it takes no arguments");
        *ret_code = 2;
        return FALSE;
    }
    if (options->version) {
        puts("virtplaned " VP_VERSION);
        *ret_code = 0;
        return FALSE;
    }
    return TRUE;
}

/* The sockets of systemd's socket activation, -1 at the end. */
static int *inherited_sockets(void)
{
    /* They are asked for once: the second time there are none. */
    const int found = sd_listen_fds(/* unset_environment= */ 1);
    const int n = found > 0 ? found : 0;
    int *sockets = g_new(int, (gsize)n + 1);

    for (int i = 0; i < n; i++)
        sockets[i] = SD_LISTEN_FDS_START + i;
    sockets[n] = -1;
    return sockets;
}

static void tell_ready(VpDaemon *daemon)
{
    g_autofree char *addresses = g_strjoinv(" ", (char **)vp_daemon_addresses(daemon));

    fprintf(stderr, "ready %s\n", addresses);
    sd_notify(0, "READY=1");
}

/* Until one of the signals says that the daemon is to end. */
static void wait_for_signal(VpDaemon *daemon, const sigset_t *signals)
{
    int signal_number = 0;

    while (sigwait(signals, &signal_number) != 0 || signal_number == SIGHUP) {
        if (signal_number == SIGHUP)
            vp_daemon_reload(daemon);
        signal_number = 0;
    }
    sd_notify(0, "STOPPING=1");
    vp_log(VP_LOG_INFO, "stopping (%s); running domains go on", signal_number == SIGTERM ? "SIGTERM" : "SIGINT");
}

/* Connections and images need more descriptors than the usual soft limit, which is for programs that use select(). */
static void raise_descriptors(void)
{
    struct rlimit limit;

    if (getrlimit(RLIMIT_NOFILE, &limit) < 0)
        return;
    limit.rlim_cur = MIN(limit.rlim_max, (rlim_t)65536);
    setrlimit(RLIMIT_NOFILE, &limit);
}

int main(int argc, char **argv)
{
    g_auto(Options) options = {0};
    sigset_t signals;
    int code = 0;

    if (!parse(argc, argv, &options, &code))
        return code;
    if (options.debug)
        vp_log_set_level(VP_LOG_DEBUG);
    /* Before the first thread: all of them inherit it, and the main thread takes the signals by sigwait(). */
    sigemptyset(&signals);
    sigaddset(&signals, SIGTERM);
    sigaddset(&signals, SIGINT);
    sigaddset(&signals, SIGHUP);
    pthread_sigmask(SIG_BLOCK, &signals, NULL);
    signal(SIGPIPE, SIG_IGN);
    raise_descriptors();

    g_autofree int *sockets = inherited_sockets();
    const VpConfigArguments arguments = {.config = options.config,
                                         .state_dir = options.state_dir,
                                         .listen = options.listen,
                                         .sockets = sockets,
                                         .insecure_tcp = options.insecure_tcp};
    g_autoptr(VpError) error = NULL;
    g_autoptr(VpConfig) config = vp_config_new(&arguments, &error);
    if (config && config->sandbox)
        error = vp_sandbox_enter();
    VpDaemon *daemon = config && !error ? vp_daemon_new(config, &error) : NULL;
    if (!daemon) {
        fprintf(stderr, "virtplaned: %s\n", error->message);
        return 1;
    }
    tell_ready(daemon);
    wait_for_signal(daemon, &signals);
    vp_daemon_free(daemon);
    return 0;
}
