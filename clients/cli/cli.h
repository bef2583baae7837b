/*
 * What every command of vpctl gets: the settings, the connection (made when first needed), and the one way to print
 * answers and errors. A command is a line in the table of commands.c and a function; it parses its own options with
 * vp_cli_parse().
 */
#pragma once

#include <jansson.h>
#include <protobuf-c/protobuf-c.h>
#include <stdio.h>

#include "base/error.h"
#include "clients/c/client.h"

typedef struct VpCli VpCli;

/* Exit codes, fixed by the contract. */
enum {
    VP_EXIT_DONE = 0,
    VP_EXIT_FAILED = 1,
    VP_EXIT_USAGE = 2,
};

typedef enum VpOutput {
    VP_OUTPUT_TABLE = 0,
    VP_OUTPUT_JSON,
    VP_OUTPUT_YAML,
    VP_OUTPUT_NAME,
} VpOutput;

typedef struct VpCommand VpCommand;
struct VpCommand {
    const char *group; /* "domain"; NULL: the command stands alone */
    const char *name;
    const char *arguments; /* for the usage line */
    guint min_arguments;
    guint max_arguments;
    const char *summary;
    const char *examples; /* one a line */
    int (*run)(VpCli *cli, const VpCommand *command, int argc, char **argv);
};

struct VpCli {
    char *address;     /* --connect, or NULL */
    char *output_name; /* --output, or NULL */
    char *timeout_text;
    char *ca; /* --ca, --cert, --key, --token-file, or NULL */
    char *certificate;
    char *key;
    char *token_file;
    gboolean insecure_tcp;
    gboolean help;
    VpOutput output;
    gint64 timeout_ms; /* of one call */
    gboolean timeout_given;
    gboolean wide;     /* --output wide: a table with all columns */
    GString *complete; /* for a shell: vp_cli_parse() only lists the command's options in it (completion.h) */
    gboolean color;    /* stdout is a terminal and NO_COLOR is not set */
    gboolean unicode;  /* the terminal shows more than ASCII */
    gboolean library;  /* gRPC has been started */
    VpClient *client;
};

/* Parses the options of a command (`entries`, NULL at the end, and the global ones) and counts what is left. Options
 * are taken out of argv; argv[1] is the first argument then. TRUE: go on. FALSE: return *ret_exit; help was printed,
 * or what was wrong. */
gboolean vp_cli_parse(VpCli *cli, const VpCommand *command, const GOptionEntry *entries, int *argc, char ***argv,
                      int *ret_exit);

/* Options before the command's name. */
gboolean vp_cli_parse_globals(VpCli *cli, int *argc, char ***argv, int *ret_exit);

/* The connection; NULL and an error if there is no address or it is none. */
VpClient *vp_cli_client(VpCli *cli, VpError **error);
/* Drops it, so that the next call connects anew. */
void vp_cli_disconnect(VpCli *cli);

/* A unary call within the time limit: see vp_client_call(). */
void *vp_cli_call(VpCli *cli, const ProtobufCServiceDescriptor *service, const char *method, const void *request,
                  VpError **error);

/* Says "vpctl: cannot DOING: ..." with all that the error tells, as JSON with --output json or yaml; frees it. Answers
 * VP_EXIT_FAILED, or VP_EXIT_USAGE if the daemon's address is none. */
int vp_cli_fail(VpCli *cli, VpError *error, const char *doing, ...) G_GNUC_PRINTF(3, 4);
/* Says "vpctl: ..." and where help is. Answers VP_EXIT_USAGE. */
int vp_cli_usage(const VpCommand *command, const char *format, ...) G_GNUC_PRINTF(2, 3);
/* The same with the message of an error, which is freed. */
int vp_cli_usage_error(const VpCommand *command, VpError *error);

/* With --output json or yaml prints the message and answers TRUE; otherwise FALSE: the caller prints a table or names.
 * `stream`: one of several, on one line (JSON) or a document of its own (YAML). */
gboolean vp_cli_print(VpCli *cli, const void *message, gboolean stream);
/* The same for a value that is made already; it is consumed. */
gboolean vp_cli_print_value(VpCli *cli, json_t *json, gboolean stream);

/* The table of commands; its last entry has no name. */
extern const VpCommand vp_commands[];
/* Whether commands stand in a group of that name. */
gboolean vp_cli_is_group(const char *word);
/* `group` NULL: one that stands alone. NULL: there is none. */
const VpCommand *vp_cli_find_command(const char *group, const char *name);
