#!/usr/bin/env bash
# Builds the CPU backend's tests, the conformance suite included, and runs them with the AVX-512 kernels on a processor
# that Bochs emulates: an Ice Lake, VBMI and VNNI included. Bochs boots a Linux that has nothing but the tests.
#   scripts/test-avx512.sh [NAME…]    every test, or those whose names contain one of these
#
# Needs a Debian machine with, once and as root:
#   apt-get update
#   apt-get install -y --no-install-recommends g++ make bochsbios vgabios busybox-static cpio isolinux syslinux-common xorriso
# A kernel (Debian's cloud image) is unpacked below target/, not installed, and so is the source of Bochs 3.0 (Debian 13's),
# which takes some ten minutes to build, once: Debian's own build has a debugger in it that makes it several times slower.
# It runs 100 to 200 million instructions a second on a core of its own: minutes for the unit tests, an hour or so for the
# conformance suite.
set -euo pipefail
cd "$(dirname "$0")/.."

target=x86_64-unknown-linux-gnu
tools=$PWD/target/avx512-tools
bochs=$tools/bochs-3.0/bochs
bios=/usr/share/bochs/BIOS-bochs-latest
vga_bios=/usr/share/vgabios/vgabios.bin
isolinux=/usr/lib/ISOLINUX/isolinux.bin
loader=/usr/lib/syslinux/modules/bios/ldlinux.c32
# The longest that the emulated machine may run.
seconds=14400

for tool in g++ make busybox cpio xorriso; do
    command -v "$tool" >/dev/null || { echo "$tool is missing: see the top of $0" >&2; exit 1; }
done
for file in "$bios" "$vga_bios" "$isolinux" "$loader"; do
    [ -f "$file" ] || { echo "$file is missing: see the top of $0" >&2; exit 1; }
done

if [ ! -x "$bochs" ]; then
    mkdir -p "$tools/lists"
    # From where this machine's own packages come.
    mirror=$(apt-get indextargets --format '$(REPO_URI)' 'Created-By: Packages' | grep '/debian/$' | head -n 1)
    printf '%s\n' 'Types: deb-src' "URIs: $mirror" 'Suites: trixie' 'Components: main' \
        'Signed-By: /usr/share/keyrings/debian-archive-keyring.gpg' >"$tools/debian.sources"
    (
        cd "$tools"
        sources=(-o Dir::Etc::sourcelist="$tools/debian.sources" -o Dir::Etc::sourceparts=- -o Dir::State::lists="$tools/lists")
        apt-get "${sources[@]}" update
        apt-get "${sources[@]}" source --tar-only --download-only bochs
        tar xf bochs_3.0+dfsg.orig.tar.xz
        cd bochs-3.0
        ./configure --enable-x86-64 --enable-cpu-level=6 --enable-fpu --enable-avx --enable-evex --enable-all-optimizations \
            --enable-pci --disable-plugins --disable-debugger --disable-docbook --with-nogui CXXFLAGS="-O2 -w" CFLAGS="-O2 -w"
        make bochs
    ) >"$tools/build.log" 2>&1 || { tail -n 20 "$tools/build.log" >&2; exit 1; }
fi

if [ ! -f "$tools/linux" ]; then
    mkdir -p "$tools/kernel"
    (
        cd "$tools/kernel"
        apt-get download "$(apt-cache depends linux-image-cloud-amd64 | sed -n 's/^ *Depends: \(linux-image-[0-9].*\)$/\1/p' | head -n 1)"
        dpkg -x linux-image-*.deb .
        cp boot/vmlinuz-* "$tools/linux"
    )
fi

# Without debug information, and with libc inside: they are all the emulated machine's files.
export CARGO_TARGET_DIR=target/avx512 CARGO_PROFILE_RELEASE_LTO=off CARGO_PROFILE_RELEASE_DEBUG=0
export RUSTFLAGS="-C target-feature=+crt-static -C strip=symbols"
rustc --version
cargo test --locked --release --target $target -p carat-cpu --lib --tests --no-run --message-format=json |
    sed -n 's/.*"executable":"\([^"]*\)".*/\1/p' >"$tools/tests"
[ -s "$tools/tests" ] || { echo "cargo named no test program" >&2; exit 1; }

machine=$tools/machine
rm -rf "$machine"
mkdir -p "$machine"/root/{bin,dev,proc,sys,tmp} "$machine/disc"
cp "$(command -v busybox)" "$machine/root/bin/busybox"
ln -s busybox "$machine/root/bin/sh"
names=()
while read -r test; do
    name=$(basename "$test")
    cp "$test" "$machine/root/bin/${name%-*}"
    names+=("${name%-*}")
done <"$tools/tests"

cat >"$machine/root/init" <<INIT
#!/bin/sh
export PATH=/bin CARAT_TEST_ISA=avx512 RUST_TEST_THREADS=1
busybox mount -t proc proc /proc
busybox mount -t sysfs sys /sys
busybox mount -t devtmpfs dev /dev
busybox mount -t tmpfs tmp /tmp
busybox grep -m 1 -o 'avx512[^ ]*' /proc/cpuinfo | busybox tr '\n' ' '
for test in ${names[*]}; do
    \$test --nocapture ${*@Q}
    echo "\$test exits with \$?"
done
busybox sleep 2 # the console is slow
busybox poweroff -f
INIT
chmod +x "$machine/root/init"
(cd "$machine/root" && find . | cpio -o -H newc -R 0:0 --quiet) >"$machine/disc/initrd"

# This processor says that it has FSRM and not ERMS, which real ones have together: a kernel that believes it copies short
# runs without end. It must not use FSRM (word 18, bit 4).
cp "$tools/linux" "$isolinux" "$loader" "$machine/disc/"
cat >"$machine/disc/isolinux.cfg" <<'LOADER'
default tests
prompt 0
label tests
    kernel linux
    initrd initrd
    append console=ttyS0 loglevel=2 mitigations=off panic=-1 clearcpuid=580
LOADER
xorriso -as mkisofs -quiet -o "$machine/disc.iso" -b isolinux.bin -c boot.cat -no-emul-boot -boot-load-size 4 \
    -boot-info-table "$machine/disc" 2>"$machine/xorriso.log"

cat >"$machine/bochsrc" <<BOCHS
cpu: model=corei7_icelake_u, count=1, ips=100000000, reset_on_triple_fault=0
memory: guest=1024, host=1024
romimage: file=$bios
vgaromimage: file=$vga_bios
display_library: nogui
ata0-master: type=cdrom, path=$machine/disc.iso, status=inserted
boot: cdrom
com1: enabled=1, mode=file, dev=$machine/console
clock: sync=none, time0=utc
log: $machine/bochs.log
panic: action=fatal
error: action=ignore
BOCHS
: >"$machine/console"
tail -f "$machine/console" &
follower=$!
trap 'kill $follower' EXIT
# Bochs takes a machine that turns itself off for a failure; what counts is what the tests said.
timeout "$seconds" "$bochs" -q -f "$machine/bochsrc" </dev/null >"$machine/bochs.out" 2>&1 || true
sleep 1

for name in "${names[@]}"; do
    tr -d '\r' <"$machine/console" | grep -qx "$name exits with 0" || { echo "$name did not pass: see $machine/console" >&2; exit 1; }
done
grep -q 'instruction sets: .*Avx512' "$machine/console" || { echo "no test exercised AVX-512: see $machine/console" >&2; exit 1; }
