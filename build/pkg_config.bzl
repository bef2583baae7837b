"""Binds a system library, found with pkg-config, as a repository with one target, //:lib."""

def _run(ctx, mode):
    result = ctx.execute(["pkg-config", mode] + ctx.attr.packages)
    if result.return_code != 0:
        fail("pkg-config %s %s: %s (tools/setup installs what is missing)" %
             (mode, " ".join(ctx.attr.packages), result.stderr))
    return [word for word in result.stdout.strip().split(" ") if word]

def _pkg_config_impl(ctx):
    # Include folders are linked into the repository, so that bazel tracks them and passes them as -isystem:
    # the warnings of other people's headers are not ours to mend. /usr/include itself needs no flag.
    includes = []
    for flag in _run(ctx, "--cflags-only-I"):
        name = "include%d" % len(includes)
        ctx.symlink(flag[2:], name)
        includes.append(name)

    # What a package names for static linking alone is not wanted: --as-needed drops it.
    libs = ["-Wl,--as-needed"] + (["-l" + lib for lib in ctx.attr.libs] or _run(ctx, "--libs"))
    ctx.file("BUILD", """
cc_library(
    name = "lib",
    hdrs = glob([d + "/**/*.h" for d in %r]),
    includes = %r,
    linkopts = %r,
    visibility = ["//visibility:public"],
)
""" % (includes, includes, libs))

pkg_config_repository = repository_rule(
    implementation = _pkg_config_impl,
    attrs = {
        "packages": attr.string_list(mandatory = True),
        "libs": attr.string_list(doc = "The libraries to link, where the package names too many."),
    },
    local = True,
    configure = True,
)
