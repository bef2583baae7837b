# The functions that the tables of this folder make their images with: each works on the file "img" in the working directory. $CORPUS is
# this folder. A part of the tests; not run by itself.

# What qemu-img makes of a format, with options: mk vmdk 4M -o subformat=streamOptimized
mk() {
    _format=$1 _size=$2
    shift 2
    qemu-img create -q -f "$_format" "$@" img "$_size"
}

# An image with data in it, converted: from vmdk -o subformat=streamOptimized
from() {
    _format=$1
    shift
    qemu-img create -q -f raw data.raw 4M
    qemu-io -f raw -c 'write -P 7 1M 200k' data.raw >/dev/null
    qemu-img convert -f raw -O "$_format" "$@" data.raw img
    rm data.raw
}

# Hex bytes at an offset (negative: from the end), and text.
put() { python3 "$CORPUS/make.py" put img "$1" "$2"; }
text() { python3 "$CORPUS/make.py" text img "$1" "$2"; }
cut() { truncate -s "$1" img; }

# Any builder of make.py: build dmg; build vhd_child base.vhd
build() {
    _builder=$1
    shift
    python3 "$CORPUS/make.py" "$_builder" img "$@"
}

# An image that has another of its format as its backing file: over qcow base
over() {
    qemu-img create -q -f "$1" base 4M
    qemu-img create -q -f "$1" -b base -F "$1" img
}

# Encrypted, with a short key derivation; Debian's QEMU times that by CPU clock, which fails now and then on quick calls.
encrypted() {
    for _try in $(seq 30); do
        qemu-img create -q --object secret,id=s,data=abc -f "$@" img 4M 2>error && return 0
    done
    command cat error
    return 1
}
