#!/usr/bin/env bash
# Builds the CPU backend for aarch64 and runs its tests, the conformance suite included, under qemu-user.
#
# Needs a Debian machine with, once and as root:
#   dpkg --add-architecture arm64 && apt-get update
#   apt-get install -y --no-install-recommends gcc-aarch64-linux-gnu libc6-dev-arm64-cross qemu-user-static
# Where rustup has the target (`rustup target add aarch64-unknown-linux-gnu`) its compiler is used. Elsewhere Debian's
# newest rustc-web with the standard library of both architectures is unpacked below target/, not installed; the
# compiler's version is then Debian's.
set -euo pipefail
cd "$(dirname "$0")/.."

target=aarch64-unknown-linux-gnu
tools=$PWD/target/neon-tools
for tool in aarch64-linux-gnu-gcc qemu-aarch64-static; do
    command -v "$tool" >/dev/null || { echo "$tool is missing: see the top of $0" >&2; exit 1; }
done

if [ ! -d "$(rustc --print target-libdir --target $target)" ]; then
    if [ ! -x "$tools/rustc" ]; then
        mkdir -p "$tools/deb" "$tools/root"
        driver=$(apt-cache depends rustc-web libstd-rust-web-dev | sed -n 's/^ *Depends: \(libstd-rust-web-[0-9.]*\)$/\1/p' | head -n 1)
        llvm=$(apt-cache depends "$driver" | sed -n 's/^ *Depends: \(libllvm[0-9]*\)$/\1/p')
        (
            cd "$tools/deb"
            apt-get download rustc-web "$driver" "$llvm" libstd-rust-web-dev:amd64 libstd-rust-web-dev:arm64
            for package in *.deb; do dpkg -x "$package" ../root; done
        )
        libraries=$tools/root/usr/lib/x86_64-linux-gnu
        printf '#!/bin/sh\nLD_LIBRARY_PATH=%s exec %s "$@"\n' "$libraries" "$tools/root/usr/bin/rustc" >"$tools/rustc"
        chmod +x "$tools/rustc"
    fi
    export RUSTC=$tools/rustc
fi

# `max` has every extension the kernels look for, `CPU=neoverse-n1` no matrix products, and `CPU=cortex-a72` no dot products
# either; threads are the tests' own.
export CARGO_TARGET_DIR=target/neon CARGO_PROFILE_RELEASE_LTO=off
export CARGO_TARGET_AARCH64_UNKNOWN_LINUX_GNU_LINKER=aarch64-linux-gnu-gcc
export CARGO_TARGET_AARCH64_UNKNOWN_LINUX_GNU_RUNNER="qemu-aarch64-static -L /usr/aarch64-linux-gnu -cpu ${CPU:-max}"
"${RUSTC:-rustc}" --version
cargo test --locked --release --target $target -p carat-cpu "$@"
