#!/usr/bin/env bash
# Fuzzes one decoder of media alone: its target starts from the fixtures of its format only.
#
#     fuzz/decoders.sh list
#     fuzz/decoders.sh DECODER SECONDS
#
# Findings and new inputs go to fuzz/found/DECODER.
set -euo pipefail
cd "$(dirname "$0")/.."

# The decoder, the target, and the fixtures it starts from.
decoders="
jpeg picture jpeg_*.jpg
png picture png_*.png
webp picture webp_*.webp
gif picture gif_*.gif
bmp picture bmp_*.bmp
tiff picture tiff_*.tiff
avif picture avif_*.avif
wav sound wav_*.wav
aiff sound *.aiff
flac sound *.flac
mp3 sound *.mp3
vorbis sound vorbis*.ogg
opus sound opus*.o*
aac sound aac.aac
m4a sound *.m4a
mp4_opus sound *.mp4
matroska sound *.mka
webm sound *.webm
h264 video *.m[po][4v]
gif_animated video *.gif
webp_animated video *.webp
png_animated video *.png
"
if [ "${1:-}" = list ]; then
    awk 'NF { print $1 }' <<<"$decoders"
    exit
fi
read -r _ target pattern < <(awk -v name="$1" '$1 == name' <<<"$decoders")
seeds=fuzz/found/$1/seeds
mkdir -p "$seeds" "fuzz/found/$1/new"
# Large ones are slow, and change little by being large.
find "fixtures/media/${target}s" -name "$pattern" -size -16k -exec cp {} "$seeds" \;
RUSTC_BOOTSTRAP=1 exec cargo fuzz run -s none "$target" "fuzz/found/$1/new" "$seeds" -- \
    -max_total_time="$2" -max_len=16384 -rss_limit_mb=2560 -timeout=60 -close_fd_mask=2 -artifact_prefix="fuzz/found/$1/"
