/* Loading librhonabwy: see jwt_library.h. */
#include "server/auth/jwt_library.h"

#include <dlfcn.h>

/* The version whose header this is built with. */
#define FILE_NAME "librhonabwy.so.1.1"

VpError *vp_jwt_library(VpJwtLibrary *ret_library)
{
    static gsize started;
    /* Never closed: libraries under it keep state for threads. A second time it is only counted. */
    void *library = dlopen(FILE_NAME, RTLD_NOW | RTLD_LOCAL);
    const char *missing = library ? NULL : dlerror();

#define LOOK_UP(name)                                                                                                  \
    ret_library->name = missing ? NULL : (__typeof__(ret_library->name))dlsym(library, #name);                         \
    if (!missing && !ret_library->name)                                                                                \
        missing = "it has no " #name;
    VP_JWT_FUNCTIONS(LOOK_UP)
#undef LOOK_UP
    if (missing)
        return vp_error_new(VP_FAILED_PRECONDITION, "LIBRARY_MISSING",
                            "tokens cannot be checked without " FILE_NAME " (package librhonabwy1.1): %s", missing);
    if (g_once_init_enter(&started)) {
        ret_library->r_global_init();
        g_once_init_leave(&started, 1);
    }
    return NULL;
}
