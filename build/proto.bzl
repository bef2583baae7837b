"""From .proto files to C: generated code with short names, and the descriptors as bytes in the program."""

def proto_c_library(name, srcs, root = "", deps = [], **kwargs):
    """Runs protoc-c over `srcs` (paths below `root`, which is a folder below this package or a system folder)."""
    headers = []
    sources = []
    for src in srcs:
        stem = src[:-len(".proto")]
        headers.append(stem + ".pb-c.h")
        sources.append(stem + ".pb-c.c")
    system = root.startswith("/")
    package = native.package_name()
    include = root if system else package
    native.genrule(
        name = name + "_gen",
        srcs = ([] if system else srcs) + ["//proto:imports"],
        outs = headers + sources,
        cmd = """
set -e
protoc --plugin=protoc-gen-c=$(location //build:protoc-gen-c-optional) -I{include} -Iproto -I/usr/include \\
    --c_out=$(RULEDIR) {files}
for file in $(OUTS); do
    sed -i -f $(location //build:shorten-names.sed) $$file
done
""".format(include = include, files = " ".join(srcs)),
        tools = [
            "//build:protoc-gen-c-optional",
            "//build:shorten-names.sed",
        ],
        message = "Generating C from",
    )
    native.cc_library(
        name = name,
        srcs = sources,
        hdrs = headers,
        includes = ["."],
        linkstatic = True,
        deps = deps + ["@protobuf_c//:lib"],
        **kwargs
    )

def descriptor_set(name, srcs, symbol, source_info, **kwargs):
    """A FileDescriptorSet of `srcs` and their imports, as `const unsigned char SYMBOL[]` and `const size_t SYMBOL_size`."""
    native.genrule(
        name = name + "_gen",
        srcs = srcs + ["//proto:imports"],
        outs = [name + ".c"],
        cmd = """
set -e
protoc -Iproto -I/usr/include --include_imports {source_info} --descriptor_set_out=$@.pb {files}
{{
    echo '#include <stddef.h>'
    echo 'extern const unsigned char {symbol}[];'
    echo 'extern const size_t {symbol}_size;'
    echo 'const unsigned char {symbol}[] = {{'
    od -An -v -tu1 -w24 $@.pb | sed 's/ \\+/,/g; s/^,//; s/$$/,/'
    echo '}};'
    echo 'const size_t {symbol}_size = sizeof({symbol});'
}} > $@
rm $@.pb
""".format(
            symbol = symbol,
            source_info = "--include_source_info" if source_info else "",
            files = " ".join([src.replace("//proto/", "").replace(":", "/") for src in srcs]),
        ),
        message = "Embedding the descriptors of",
    )
    native.cc_library(
        name = name,
        srcs = [name + ".c"],
        linkstatic = True,
        **kwargs
    )
