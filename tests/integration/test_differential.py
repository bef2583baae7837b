"""Side by side with qemu-img: generated chains of formats x reference forms x depth x declared or not. Layers, formats, sizes, data files and references
have to agree with `qemu-img info --backing-chain`, or the disagreement is one of those listed here, each with why the daemon is right.

150 chains in a plain run, 2,000 with VIRTPLANE_FULL=1 (tools/test --full). The seed is fixed: a chain that fails is made again by its number.
"""
import collections
import json
import os
import random
import subprocess

import pytest

from harness import images
from harness.client import pb

CHUNK = 50
CHUNKS = 40 if os.environ.get("VIRTPLANE_FULL") else 3

# What may differ, and why that is right. docs/images.md has the same table.
DISAGREEMENTS = {
    "undeclared-names-files": "nobody declared the layer's format, and it names other files: a guest may have written that header into its raw disk",
    "working-directory": "the name counts from the working directory of whoever opens it: another program would open another file",
    "contradiction": "the overlay records one format and its json reference names another: qemu-img drops one of the two without a word",
    "several-formats": "nobody declared the format and several match: qemu-img takes the first of its own list",
    "debug-driver": "a debug or test driver is no image",
    "vvfat": "a folder of the host is no image",
    "quoting": "json in QEMU's own dialect (single quotes): other programs cannot read it",
    "remote": "a remote layer is told, and not connected to",
    "filter": "a filter node (copy-on-read) is not what the guest's disk is made of; a driver puts it in where it is wanted",
}

BASES = ("raw", "qcow2", "vmdk", "vdi", "vpc", "vhdx", "qed", "qcow", "parallels")
NAMES = ("b", "with space", "with:colon", "h\u00f6h", "a,comma", "quote'", 'double"', "back\\slash", "percent%20", "-dash", "hash#")
GOOD_FORMS = ("relative", "dot", "sub", "up", "absolute", "file", "symlink", "json", "json-dotted", "json-mixed", "json-no-driver", "json-window",
              "json-inner-window", "json-harmless")
ODD_FORMS = {"file-relative": "working-directory", "json-relative": "working-directory", "json-contradiction": "contradiction",
             "single-quotes": "quoting", "blkdebug": "debug-driver", "json-blkdebug": "debug-driver", "fat": "vvfat", "nbd": "remote",
             "json-copy-on-read": "filter"}


class Maker:
    """Makes one chain in a folder; `layers` are its files from the base on."""

    def __init__(self, folder, seed):
        self.random = random.Random(seed)
        self.folder = folder
        self.expect = None  # a disagreement that has to show
        self.recipe = []
        os.makedirs(os.path.join(folder, "sub"))
        os.makedirs(os.path.join(folder, "cwd"))

    def make(self):
        depth = self.random.choice((1, 1, 2, 2, 3, 4, 6))
        path, form = self.base()
        for level in range(1, depth + 1):
            path, form = self.overlay(level, path, form)
        return path

    def fresh(self, level, extension):
        name = self.random.choice(NAMES)
        where = self.folder if self.random.random() < 0.6 else os.path.join(self.folder, "sub")
        return os.path.join(where, f"{level} {name}.{extension}" if self.random.random() < 0.3 else f"{level}{name}.{extension}")

    def base(self):
        form = self.random.choice(BASES + ("raw", "qcow2") * 3)
        path = self.fresh(0, form)
        size = self.random.choice((1 << 20, 4 << 20, (4 << 20) + 512, 64 << 20))
        kind = self.random.random()
        if form == "qcow2" and kind < 0.2:
            images.qemu_img("create", "-q", "-f", "qcow2", "-o", f"data_file={os.path.join(self.folder, 'data.raw')}", self.option(path), size)
        elif form == "qcow2" and kind < 0.5:
            options = self.random.choice(("compat=0.10", "cluster_size=4k", "cluster_size=2M", "extended_l2=on,cluster_size=128k", "lazy_refcounts=on",
                                          "compression_type=zstd", "refcount_bits=1"))
            images.qemu_img("create", "-q", "-f", "qcow2", "-o", options, self.option(path), size)
        else:
            images.qemu_img("create", "-q", "-f", form, self.option(path), size)
        self.recipe.append((form, path))
        return path, form

    @staticmethod
    def option(path):
        return os.path.join(os.path.dirname(path), os.path.basename(path))

    def reference(self, form, path, image_format, own):
        """How the file `own` names `path`, and the format that is recorded."""
        folder = os.path.dirname(own)
        relative = os.path.relpath(path, folder)
        relative = "./" + relative if ":" in relative.split("/")[0] else relative
        node = {"driver": "file", "filename": path}
        if form == "relative":
            return relative
        if form == "dot":
            return "./" + os.path.relpath(path, folder)
        if form == "sub":
            return os.path.join("..", os.path.basename(folder), os.path.relpath(path, folder))
        if form == "up":
            return os.path.join(".", "..", os.path.basename(folder), ".", os.path.relpath(path, folder))
        if form == "absolute":
            return path
        if form == "file":
            return "file:" + path
        if form == "symlink":
            link = f"{own}.link"
            os.symlink(path, link)
            return "./" + os.path.basename(link)
        if form == "json":
            return "json:" + json.dumps({"driver": image_format, "file": node})
        if form == "json-dotted":
            return "json:" + json.dumps({"driver": image_format, "file.driver": "file", "file.filename": path})
        if form == "json-mixed":
            return "json: " + json.dumps({"file": {"filename": path}, "driver": image_format, "file.driver": "file"})
        if form == "json-no-driver":
            return "json:" + json.dumps({"file.filename": path})
        if form == "json-harmless":
            return "json:" + json.dumps({"driver": image_format, "read-only": True, "cache": {"direct": False}, "file": dict(node, locking="auto")})
        if form == "file-relative":
            return "file:" + os.path.relpath(path, os.path.join(self.folder, "cwd"))
        if form == "json-relative":
            return "json:" + json.dumps({"driver": image_format, "file.filename": os.path.relpath(path, os.path.join(self.folder, "cwd"))})
        if form == "json-contradiction":
            other = "raw" if image_format != "raw" else "qcow2"
            return "json:" + json.dumps({"driver": other, "file": node})
        if form == "single-quotes":
            return "json:{'driver':'%s','file.filename':'%s'}" % (image_format, path)
        if form == "blkdebug":
            return "blkdebug::" + path
        if form == "json-blkdebug":
            return "json:" + json.dumps({"driver": image_format, "file": {"driver": "blkdebug", "image": node}})
        if form == "fat":
            return "fat:" + os.path.join(self.folder, "cwd")
        if form == "json-copy-on-read":
            return "json:" + json.dumps({"driver": image_format, "file": {"driver": "copy-on-read", "file": node}})
        raise AssertionError(form)

    def window(self, path, image_format, inner):
        """The file put into a larger one, and how that window of it is named."""
        pad = self.random.choice((512, 4096, 1 << 20))
        size = os.path.getsize(path)
        wrapped = path + ".wrapped"
        with open(path, "rb") as source, open(wrapped, "wb") as target:
            target.seek(pad)
            target.write(source.read())
            target.truncate(pad + size + 4096)
        reach = {"size": size} if size % 512 == 0 else {}
        node = {"driver": "file", "filename": wrapped}
        if inner or image_format != "raw":
            return "json:" + json.dumps({"driver": image_format, "file": {"driver": "raw", "offset": pad, **reach, "file": node}})
        return "json:" + json.dumps({"driver": "raw", "offset": self.random.choice((pad, str(pad))), **reach, "file": node})

    def overlay(self, level, path, image_format):
        own = self.fresh(level, "qcow2")
        form = self.random.choice(GOOD_FORMS)
        declared = image_format
        if level == 1 and self.random.random() < 0.12:
            form = self.random.choice(tuple(ODD_FORMS))
            if form == "nbd" or (form in ("single-quotes",) and ("'" in path or "\\" in path)) or (form == "blkdebug" and image_format != "raw"):
                form = "json-contradiction"
            self.expect = ODD_FORMS[form]
        if form == "fat":
            declared = "raw"
        if form.endswith("window"):
            small = os.path.getsize(path) <= 8 << 20
            # A fixed VHD and the like end with their mark; the pad behind a window is not theirs, so that they are as good in it.
            reference = self.window(path, image_format, form == "json-inner-window") if small else path
        else:
            reference = self.reference(form, path, image_format, own)
        record = declared
        odd = form in ODD_FORMS
        if not odd and self.random.random() < 0.06:
            record = "raw"  # declared raw, whatever it is: obeyed
            if reference.startswith("json:"):
                reference = path
        size = self.random.choice((1 << 20, 8 << 20, 64 << 20))
        if len(os.fsencode(reference)) > 1000:
            reference = path
            self.expect = None if odd else self.expect
        images.qemu_img("create", "-q", "-u", "-f", "qcow2", "-F", record, "-b", reference, own, size)
        if not odd and record == image_format and self.random.random() < 0.2:
            images.forget_backing_format(own)
            record = None
        self.recipe.append((form, record, reference, own))
        return own, "qcow2"


def ask_qemu_img(top, folder):
    """The layers as qemu-img has them, or what it says against them."""
    done = subprocess.run(["qemu-img", "info", "--backing-chain", "--output=json", "-f", "qcow2", top], cwd=os.path.join(folder, "cwd"),
                          stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, timeout=120, check=False)
    if done.returncode:
        return None, done.stderr.strip()
    layers = []
    for layer in json.loads(done.stdout):
        specific = layer.get("format-specific", {}).get("data", {})
        layers.append((file_of(layer["filename"]), layer["format"], layer["virtual-size"], layer.get("backing-filename", ""), specific.get("data-file", "")))
    return layers, ""


def file_of(name):
    """The file that a name of qemu-img's answer is about."""
    if name.startswith("json:"):
        node = json.loads(name[5:])
        while "file" in node:
            node = node["file"]
        name = node.get("filename", name)
    return os.path.realpath(name)


def ask_daemon(client, top):
    """The same from InspectChain; and the codes of the errors."""
    layers, errors = [], []
    for message in client.image.InspectChain(pb.InspectChainRequest(path=top, format=pb.IMAGE_FORMAT_QCOW2), timeout=120):
        kind = message.WhichOneof("payload")
        if kind == "finding" and message.finding.severity == pb.SEVERITY_ERROR:
            errors.append(pb.FindingCode.Name(message.finding.code)[len("FINDING_CODE_"):])
        elif kind == "layer" and not message.layer.is_data_file:
            layer = message.layer
            shown = pb.ImageFormat.Name(layer.format)[len("IMAGE_FORMAT_"):].lower()
            layers.append((os.path.realpath(layer.path), shown, layer.virtual_size_bytes, layer.backing_path, layer.data_file))
        elif kind == "summary":
            assert message.summary.safe == (not errors)
    return layers, errors


def same_reference(ours, theirs):
    """qemu-img shows json references as it has parsed them; the text is then not the header's."""
    if ours.startswith("json:") and theirs.startswith("json:"):
        return True
    return ours == theirs or ours.startswith("json:") or os.path.realpath(ours) == os.path.realpath(theirs)


def judge(maker, theirs, complaint, ours, errors):
    """The name of a disagreement that is right, None if all agrees; fails on any other."""
    told = f"\n  qemu-img: {theirs or complaint}\n  daemon:   {ours} {errors}\n  made by:  {maker.recipe}"
    if errors and errors[0] in ("UNSUPPORTED_REFERENCE", "REMOTE_BACKING"):
        assert maker.expect, told
        return maker.expect if theirs else None
    # An odd reference lies at the base; a layer above may have ended the chain before it.
    assert not maker.expect or len(ours) < len(maker.recipe), told
    if errors:
        if theirs is None:
            return None
        if errors[0] in ("PROBE_REFUSED_BACKING_FILE", "PROBE_REFUSED_DATA_FILE", "PROBE_REFUSED_OTHER_FILE"):
            # So far as it was walked it agrees, and the layer refused is one whose format nobody declared and which names others.
            refused = len(ours) - 1
            assert maker.recipe[-refused][1] is None, told
            assert theirs[refused][3] or theirs[refused][4], told
            return "undeclared-names-files"
        if errors[0] == "AMBIGUOUS_FORMAT":
            return "several-formats"
        raise AssertionError(f"refused with {errors}{told}")
    assert theirs is not None, told
    assert len(theirs) == len(ours), told
    for their, our in zip(theirs, ours):
        assert their[:3] == our[:3], told
        assert same_reference(our[3], their[3]), told
        assert their[4] == our[4], told
    return None


@pytest.mark.timeout(600)
@pytest.mark.parametrize("chunk", range(CHUNKS))
def test_generated_chains(daemon, client, chunk):
    seen = collections.Counter()
    for number in range(chunk * CHUNK, (chunk + 1) * CHUNK):
        folder = os.path.realpath(daemon.path(f"chain{number}"))
        maker = Maker(folder, number)
        top = maker.make()
        theirs, complaint = ask_qemu_img(top, folder)
        ours, errors = ask_daemon(client, top)
        try:
            outcome = judge(maker, theirs, complaint, ours, errors)
        except AssertionError as error:
            raise AssertionError(f"chain {number}: {error}") from None
        assert outcome is None or outcome in DISAGREEMENTS
        seen[outcome or ("both refuse" if errors else "agrees")] += 1
        subprocess.run(["rm", "-rf", folder], check=True)
    print("\n".join(f"{count:5} {what}" for what, count in seen.most_common()))
    assert seen["agrees"] >= CHUNK // 2, seen
