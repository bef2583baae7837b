/* See folder.h. One lock guards the two queues; it is never held while a file is read or a message is sent. */
#include "storage/chain/folder.h"

#include <string.h>
#include <unistd.h>

#include "base/pb.h"
#include "base/thread.h"
#include "storage/chain/finding.h"
#include "storage/chain/listing.h"
#include "storage/chain/text.h"
#include "storage/chain/walk.h"

#define MAX_THREADS 4
#define MAX_LAYERS 100000 /* that are remembered */
#define MAX_WAITING 8     /* lists of files, and messages */
#define CHUNK 128         /* files in a list; the first ones are shorter, so that the first answer is quick */
#define MESSAGE_ITEMS 512 /* layers and findings in a message: some 200 KB */

typedef struct Folder {
    const VpFolderOptions *options;
    const VpImagePolicy *policy;
    VpShare *share;
    pthread_mutex_t mutex; /* guards what follows */
    pthread_cond_t to_do;  /* for those who walk */
    pthread_cond_t done;   /* for the caller's thread */
    GQueue files;          /* of GArray of VpListed */
    GQueue messages;       /* of PbInspectPathResponse */
    guint working;
    gboolean listed; /* no more files come */
    gboolean stop;
    VpError *error; /* why it was stopped, if a walk did it */
    PbPathSummary summary;
} Folder;

static void free_files(gpointer files)
{
    g_array_unref(files);
}

/* ---- those who walk ---- */

typedef struct Walker {
    Folder *folder;
    VpWalk walk;
    PbInspectPathResponse *message; /* being filled */
    guint items;
    PbPathSummary counts;
} Walker;

/* Waits for room. FALSE: stopped. */
static gboolean push_message(Folder *folder, PbInspectPathResponse *message)
{
    VP_LOCK(&folder->mutex);
    while (folder->messages.length >= MAX_WAITING && !folder->stop) {
        pthread_cond_wait(&folder->to_do, &folder->mutex);
    }
    if (folder->stop) {
        vp_pb_free(message);
        return FALSE;
    }
    g_queue_push_tail(&folder->messages, message);
    pthread_cond_signal(&folder->done);
    return TRUE;
}

static gboolean flush(Walker *walker)
{
    PbInspectPathResponse *message = g_steal_pointer(&walker->message);
    walker->items = 0;
    return !message || push_message(walker->folder, message);
}

/* The image takes over the layers and findings that are to be told; the rest goes with the chain. */
static PbInspectedImage *image_of(const char *path, const VpWalk *walk, guint fresh, const char *continues_at)
{
    PbInspectedImage *image = vp_pb_new(&pb_inspected_image__descriptor);
    VpChain *chain = walk->chain;

    image->path = vp_text_utf8(path, -1);
    if (continues_at) {
        vp_pb_set(&image->continues_at, continues_at);
    }
    image->summary = g_steal_pointer(&chain->summary);
    for (guint i = 0; i < fresh; i++) {
        VpChainFile *file = &g_array_index(chain->files, VpChainFile, i);
        vp_pb_append(&image->n_layers, &image->layers, g_steal_pointer(&file->layer));
        if (file->data_layer) {
            vp_pb_append(&image->n_layers, &image->layers, g_steal_pointer(&file->data_layer));
        }
    }
    gboolean joined_late = fresh < chain->files->len; /* another walk was quicker with the rest */
    for (guint i = 0; i < chain->findings->len; i++) {
        PbFinding *finding = g_ptr_array_index(chain->findings, i);
        if (joined_late && (finding->depth > fresh || (finding->depth == fresh && !vp_share_is_of_overlay(finding)))) {
            continue;
        }
        vp_pb_append(&image->n_findings, &image->findings, finding);
        g_ptr_array_index(chain->findings, i) = NULL;
    }
    return image;
}

static VpError *walk_one(Walker *walker, const VpListed *listed)
{
    const char *path = listed->path;
    const VpFolderOptions *options = walker->folder->options;
    PbImageFormat format =
        options->declared ? options->declared(options->declared_data, path) : PB_IMAGE_FORMAT_UNSPECIFIED;
    const char *continues_at = NULL;

    VpError *error = vp_walk_run(&walker->walk, path, format, listed);
    if (error) {
        return error;
    }
    walker->counts.images++;
    walker->counts.safe += walker->walk.chain->summary->safe;
    walker->counts.unsafe += !walker->walk.chain->summary->safe;
    guint fresh = vp_share_commit(walker->folder->share, &walker->walk, &continues_at);
    PbInspectedImage *image = image_of(path, &walker->walk, fresh, continues_at);

    if (!walker->message) {
        walker->message = vp_pb_new(&pb_inspect_path_response__descriptor);
    }
    vp_pb_append(&walker->message->n_images, &walker->message->images, image);
    walker->items += (guint)(1 + image->n_layers + image->n_findings);
    return NULL;
}

static void walk_list(Walker *walker, const GArray *files)
{
    Folder *folder = walker->folder;
    for (guint i = 0; i < files->len; i++) {
        VpError *error = walk_one(walker, &g_array_index(files, VpListed, i));
        if (error) {
            VP_LOCK(&folder->mutex);
            folder->stop = TRUE;
            if (folder->error) {
                vp_error_free(error);
            } else {
                folder->error = error;
            }
            return;
        }
        if (walker->items >= MESSAGE_ITEMS && !flush(walker)) {
            return;
        }
    }
    flush(walker);
}

static GArray *take_list(Folder *folder)
{
    VP_LOCK(&folder->mutex);
    while (folder->files.length == 0 && !folder->listed && !folder->stop) {
        pthread_cond_wait(&folder->to_do, &folder->mutex);
    }
    GArray *files = folder->stop ? NULL : g_queue_pop_head(&folder->files);
    folder->working += files != NULL;
    pthread_cond_signal(&folder->done);
    return files;
}

static void *run_walker(void *data)
{
    Walker walker = {.folder = data};
    Folder *folder = data;
    const VpChainOptions options = {
        .policy = folder->policy,
        .max_depth = folder->options->max_depth,
        .look_only = TRUE,
    };
    GArray *files;

    vp_walk_init(&walker.walk, &options, NULL);
    walker.walk.share = folder->share;
    walker.walk.alike = folder->options->alike;
    while ((files = take_list(folder))) {
        walk_list(&walker, files);
        g_array_unref(files);
        VP_LOCK(&folder->mutex);
        folder->working--;
        pthread_cond_signal(&folder->done);
    }
    vp_walk_clear(&walker.walk);
    vp_pb_free(walker.message);
    VP_LOCK(&folder->mutex);
    folder->summary.images += walker.counts.images;
    folder->summary.safe += walker.counts.safe;
    folder->summary.unsafe += walker.counts.unsafe;
    return NULL;
}

/* ---- the caller's thread ---- */

/* What there is to do next. */
typedef enum Next {
    NEXT_SEND,
    NEXT_LIST,
    NEXT_END,
} Next;

static Next wait_next(Folder *folder, PbInspectPathResponse **ret_message)
{
    VP_LOCK(&folder->mutex);
    for (;;) {
        if (folder->stop) {
            return NEXT_END;
        }
        *ret_message = g_queue_pop_head(&folder->messages);
        if (*ret_message) {
            pthread_cond_broadcast(&folder->to_do);
            return NEXT_SEND;
        }
        if (!folder->listed && folder->files.length < MAX_WAITING) {
            return NEXT_LIST;
        }
        if (folder->listed && folder->files.length == 0 && folder->working == 0) {
            return NEXT_END;
        }
        pthread_cond_wait(&folder->done, &folder->mutex);
    }
}

static gboolean send(Folder *folder, VpFolderSink sink, void *data, PbInspectPathResponse *message)
{
    gboolean goes_on = sink(data, message);
    vp_pb_free(message);
    if (goes_on) {
        return TRUE;
    }
    VP_LOCK(&folder->mutex);
    folder->stop = TRUE;
    return FALSE;
}

/* Folders that could not be read, each as an image that is none. */
static gboolean send_unread(Folder *folder, GArray *unread, VpFolderSink sink, void *data)
{
    if (unread->len == 0) {
        return TRUE;
    }
    PbInspectPathResponse *message = vp_pb_new(&pb_inspect_path_response__descriptor);
    for (guint i = 0; i < unread->len; i++) {
        VpUnread *entry = &g_array_index(unread, VpUnread, i);
        PbInspectedImage *image = vp_pb_new(&pb_inspected_image__descriptor);
        g_autofree char *shown = vp_text_utf8(entry->path, -1);
        vp_pb_set(&image->path, shown);
        image->summary = vp_pb_new(&pb_chain_summary__descriptor);
        image->summary->errors = 1;
        vp_pb_append(&image->n_findings, &image->findings,
                     vp_finding_new(entry->code, PB_SEVERITY_ERROR, 0, entry->path, NULL, "%s", entry->why));
        vp_pb_append(&message->n_images, &message->images, image);
        g_free(entry->path);
        g_free(entry->why);
    }
    folder->summary.unread_folders += unread->len;
    g_array_set_size(unread, 0);
    return send(folder, sink, data, message);
}

static gboolean list_some(Folder *folder, VpListing *listing, guint most, VpFolderSink sink, void *data)
{
    g_autoptr(GArray) files = vp_listed_array(most);
    g_autoptr(GArray) unread = g_array_new(FALSE, FALSE, sizeof(VpUnread));
    gboolean more = vp_listing_next(listing, most, files, unread);
    {
        VP_LOCK(&folder->mutex);
        folder->listed = !more;
        if (files->len > 0) {
            g_queue_push_tail(&folder->files, g_steal_pointer(&files));
        }
        pthread_cond_broadcast(&folder->to_do);
    }
    return send_unread(folder, unread, sink, data);
}

static void run_caller(Folder *folder, VpListing *listing, VpFolderSink sink, void *data)
{
    guint most = 1;
    for (;;) {
        PbInspectPathResponse *message = NULL;
        switch (wait_next(folder, &message)) {
        case NEXT_SEND:
            send(folder, sink, data, message);
            break;
        case NEXT_LIST:
            list_some(folder, listing, most, sink, data);
            most = MIN(most * 2, CHUNK);
            break;
        case NEXT_END:
            return;
        }
    }
}

/* The shared bases go out in messages of some; the last one has the summary. */
typedef struct Ending {
    Folder *folder;
    VpFolderSink sink;
    void *data;
    PbInspectPathResponse *message;
} Ending;

static gboolean add_base(void *data, const PbSharedBase *base)
{
    Ending *ending = data;
    if (ending->message->n_shared_bases >= MESSAGE_ITEMS) {
        PbInspectPathResponse *full = ending->message;
        ending->message = vp_pb_new(&pb_inspect_path_response__descriptor);
        if (!send(ending->folder, ending->sink, ending->data, full)) {
            return FALSE;
        }
    }
    vp_pb_append(&ending->message->n_shared_bases, &ending->message->shared_bases, vp_pb_dup(base));
    return TRUE;
}

static void send_end(Folder *folder, VpFolderSink sink, void *data)
{
    Ending ending = {folder, sink, data, vp_pb_new(&pb_inspect_path_response__descriptor)};

    folder->summary.shared_bases = vp_share_bases(folder->share, add_base, &ending);
    folder->summary.layers = vp_share_layers(folder->share);
    if (folder->stop) {
        vp_pb_free(ending.message);
        return;
    }
    ending.message->summary = vp_pb_dup(&folder->summary);
    send(folder, sink, data, ending.message);
}

static guint start_walkers(Folder *folder, pthread_t *threads)
{
    long cores = sysconf(_SC_NPROCESSORS_ONLN);
    guint wanted = folder->options->threads ? folder->options->threads : (guint)CLAMP(cores, 1, MAX_THREADS);
    for (guint i = 0; i < MIN(wanted, MAX_THREADS); i++) {
        VpError *error = vp_thread_start(&threads[i], "vp-images", run_walker, folder);
        if (error) {
            VP_LOCK(&folder->mutex);
            folder->stop = TRUE;
            folder->error = error;
            return i;
        }
    }
    return MIN(wanted, MAX_THREADS);
}

static void end_walkers(Folder *folder, const pthread_t *threads, guint n_threads)
{
    {
        VP_LOCK(&folder->mutex);
        folder->listed = TRUE;
        pthread_cond_broadcast(&folder->to_do);
    }
    for (guint i = 0; i < n_threads; i++) {
        pthread_join(threads[i], NULL);
    }
}

VpError *vp_folder_inspect(const char *path, const VpFolderOptions *options, VpFolderSink sink, void *data)
{
    g_autoptr(VpListing) listing = NULL;
    pthread_t threads[MAX_THREADS];
    Folder folder = {
        .options = options,
        .policy = options->policy ? options->policy : &vp_image_policy_default,
        .summary = PB_PATH_SUMMARY__INIT,
    };

    VpError *error = vp_listing_new(path, folder.policy, options->flat, &listing);
    if (error) {
        return error;
    }
    folder.share = vp_share_new(MAX_LAYERS);
    pthread_mutex_init(&folder.mutex, NULL);
    vp_cond_init(&folder.to_do);
    vp_cond_init(&folder.done);
    guint n_threads = start_walkers(&folder, threads);
    run_caller(&folder, listing, sink, data);
    end_walkers(&folder, threads, n_threads);
    if (!folder.stop) {
        send_end(&folder, sink, data);
    }
    g_queue_clear_full(&folder.files, free_files);
    g_queue_clear_full(&folder.messages, vp_pb_free);
    pthread_cond_destroy(&folder.done);
    pthread_cond_destroy(&folder.to_do);
    pthread_mutex_destroy(&folder.mutex);
    vp_share_free(folder.share);
    if (folder.stop && !folder.error) {
        folder.error = vp_error_new(VP_CANCELLED, "READER_GONE", "the inspection was stopped by its reader");
    }
    return folder.error;
}
