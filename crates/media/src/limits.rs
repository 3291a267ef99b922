//! How much is taken at once. Each is checked before the memory it bounds is used.

/// Bytes of a picture's file.
pub const MAX_PICTURE_BYTES: usize = 128 << 20;

/// Pixels of a picture: 8192 × 8192. Beyond, there is nothing the largest budget could show (it has 2.6 million).
pub const MAX_PIXELS: u64 = 1 << 26;

/// Width or height of a picture: what a JPEG can say.
pub const MAX_SIDE: u32 = 65_535;

/// Bytes that a picture's decoder may take: [`MAX_PIXELS`] of 16-bit RGB and alpha.
pub const MAX_DECODE_BYTES: u64 = 8 * MAX_PIXELS;

/// Coded frames of one picture of AV1, of which one is shown. Each may take as long as a whole picture.
pub const MAX_UNIT_FRAMES: usize = 8;

/// Bytes of a sound's file.
pub const MAX_SOUND_BYTES: usize = 512 << 20;

/// Length of a sound. A model hears 30 s at once; the rest is for cutting it up.
pub const MAX_SECONDS: u64 = 1800;

/// Length of a sound that is heard bit by bit: a day.
pub const MAX_RECORDING_SECONDS: u64 = 86_400;

/// Bytes of such a sound's file.
pub const MAX_RECORDING_BYTES: u64 = 16 << 30;

/// Samples of one channel at the file's rate: [`MAX_SECONDS`] at 48 kHz, 330 MiB of f32.
pub const MAX_SAMPLES: u64 = MAX_SECONDS * 48_000;

/// Lowest and highest sample rate, in Hz.
pub const RATES: std::ops::RangeInclusive<u32> = 1_000..=384_000;

/// Packets in a row that a sound's decoder may refuse before the file counts as damaged.
pub const MAX_BAD_PACKETS: usize = 8;

/// Bytes of a video's file.
pub const MAX_VIDEO_BYTES: usize = 4 << 30;

/// Frames of a video: half an hour of 60 per second.
pub const MAX_VIDEO_FRAMES: u64 = 108_000;

/// Pixels of a video's frame: those of level 5.2 of H.264, 4096 × 2304. A decoder keeps up to 17 of them.
pub const MAX_FRAME_PIXELS: u64 = 36_864 * 256;

/// Pixels of all frames that must be decoded: those of 4096 with 2048 × 2048, some minutes' work. Of animations that is all
/// frames, of others those that 32 of them depend on.
pub const MAX_VIDEO_PIXELS: u64 = 1 << 34;
