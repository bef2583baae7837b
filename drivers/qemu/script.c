/* See script.h. */
#include "script.h"

#include <string.h>

#include "live_commands.h"
#include "nodes.h"

struct VpScript {
    VpQemuDomain *domain; /* a reference */
    json_t *commands;
    gsize next; /* the command that is under way, or to be taken back next */
    gboolean trying;
    gboolean given_up;
    json_int_t last_fd; /* the number in QEMU of the descriptor that it was given last */
    VpError *error;     /* why all is being taken back */
    VpScriptDone done;
    void *data;
};

static void step(VpScript *script);
static void take_back(VpScript *script);

static void script_end(VpScript *script)
{
    VpScriptDone done = script->done;
    void *data = script->data;
    VpError *error = g_steal_pointer(&script->error);

    json_decref(script->commands);
    vp_qemu_domain_unref(script->domain);
    g_free(script);
    if (done)
        done(data, error);
    else
        vp_error_free(error);
}

static void end_later(void *data)
{
    script_end(data);
}

static void send_command(VpScript *script, json_t *command, VpQmpDone done)
{
    json_t *fd = json_object_get(command, "fd");
    json_t *arguments = json_incref(json_object_get(command, "arguments"));

    if (json_is_true(json_object_get(command, "file-of-fd"))) {
        g_autofree char *path = g_strdup_printf("/dev/fd/%" JSON_INTEGER_FORMAT, script->last_fd);

        json_object_set_new(arguments, "file", json_string(path));
    }
    vp_qmp_execute_with_fd(script->domain->qmp, json_string_value(json_object_get(command, "execute")), arguments,
                           fd ? (int)json_integer_value(fd) : -1, 0, done, script);
}

/* ---- taking back ---- */

static void on_undone(void *data, json_t *result, VpError *error)
{
    VpScript *script = data;

    (void)result;
    /* What cannot be taken back is found when the devices are looked at the next time. */
    vp_error_free(error);
    take_back(script);
}

static void take_back(VpScript *script)
{
    while (script->next > 0) {
        json_t *undo = vp_live_undo(json_array_get(script->commands, --script->next));

        if (undo && script->domain->qmp) {
            send_command(script, undo, on_undone);
            json_decref(undo);
            return;
        }
        json_decref(undo);
    }
    script_end(script);
}

/* ---- going on ---- */

static VpError *check(json_t *command, json_t *result)
{
    return json_object_get(command, "check") ? vp_qemu_check_nodes(result) : NULL;
}

static void on_done(void *data, json_t *result, VpError *error)
{
    VpScript *script = data;
    json_t *command = json_array_get(script->commands, script->next);
    json_t *fd = json_object_get(result, "fd");

    if (!error)
        error = check(command, result);
    if (fd)
        script->last_fd = json_integer_value(fd);
    /* With its last command it is through. */
    if (!error && script->given_up && script->next + 1 < json_array_size(script->commands)) {
        script->next++;
        error = vp_error_new(VP_CANCELLED, "CANCELLED", "the change was given up");
    }
    if (!error || script->trying) {
        vp_error_free(error);
        script->next++;
        step(script);
        return;
    }
    script->error = vp_error_with(error, "command", json_string_value(json_object_get(command, "execute")));
    take_back(script);
}

static void step(VpScript *script)
{
    if (script->next == json_array_size(script->commands)) {
        script_end(script);
    } else if (!script->domain->qmp) {
        script->error = vp_error_new(VP_UNAVAILABLE, "DOMAIN_UNRESPONSIVE",
                                     "QEMU does not answer; it may come back, and powering off works");
        script_end(script);
    } else {
        send_command(script, json_array_get(script->commands, script->next), on_done);
    }
}

static VpScript *run(VpQemuDomain *domain, json_t *commands, gboolean trying, VpScriptDone done, void *data)
{
    VpScript *script = g_new0(VpScript, 1);

    *script = (VpScript){.domain = vp_qemu_domain_ref(domain),
                         .commands = commands,
                         .trying = trying,
                         .done = done,
                         .data = data};
    if (json_array_size(commands) > 0 && domain->qmp) {
        step(script);
        return script;
    }
    if (json_array_size(commands) > 0)
        script->error = vp_error_new(VP_UNAVAILABLE, "DOMAIN_UNRESPONSIVE",
                                     "QEMU does not answer; it may come back, and powering off works");
    vp_loop_post(domain->driver->host->loop, end_later, script);
    return script;
}

VpScript *vp_script_run(VpQemuDomain *domain, json_t *commands, VpScriptDone done, void *data)
{
    return run(domain, commands, /* trying= */ FALSE, done, data);
}

void vp_script_give_up(VpScript *script)
{
    script->given_up = TRUE;
}

void vp_script_try(VpQemuDomain *domain, json_t *commands, VpScriptDone done, void *data)
{
    run(domain, commands, /* trying= */ TRUE, done, data);
}
