"""The rules that every BUILD file here uses: the project's warnings and hardening on top of bazel's cc_*."""

# Warnings are errors (.bazelrc). protobuf-c's generated code is built without these.
COPTS = [
    "-Wall",
    "-Wextra",
    "-Wconversion",
    "-Wno-sign-conversion",
    "-Wshadow",
    "-Wstrict-prototypes",
    "-Wmissing-prototypes",
    "-Wpointer-arith",
    "-Wvla",
    "-Wformat=2",
    "-Werror",
]

def vp_library(name, deps = [], copts = [], **kwargs):
    native.cc_library(name = name, deps = deps, copts = COPTS + copts, linkstatic = True, **kwargs)

def vp_binary(name, deps = [], copts = [], **kwargs):
    native.cc_binary(name = name, deps = deps, copts = COPTS + copts, **kwargs)

def vp_test(name, srcs, deps = [], copts = [], size = "small", **kwargs):
    """One cmocka program."""
    native.cc_test(
        name = name,
        srcs = srcs,
        size = size,
        linkstatic = True,
        copts = COPTS + copts,
        deps = deps + ["@cmocka//:lib"],
        **kwargs
    )
