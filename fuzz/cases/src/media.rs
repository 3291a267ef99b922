//! Pictures, sounds and videos, decoded and cut up as models want them.

use carat_media::limits::{MAX_PIXELS, MAX_SAMPLES, RATES};
use carat_media::picture::{self, Budget, Patching};
use carat_media::sound::{self, MAX_CLIP};
use carat_media::video;

/// A picture's file: its pixels are as many as it says, and what is cut from them fits its budget.
pub fn picture(data: &[u8]) -> bool {
    let Ok(picture) = picture::decode(data) else { return false };
    assert!((1..=MAX_PIXELS).contains(&((picture.width * picture.height) as u64)));
    assert_eq!(picture.rgb.len(), picture.width * picture.height * 3);
    for patching in [Patching::Tower, Patching::Blocks] {
        let patches = picture::patches(&picture, Budget::FRAME, patching);
        assert!((1..=Budget::FRAME.tokens()).contains(&patches.soft_tokens));
        assert_eq!(patches.positions.len(), patches.soft_tokens * patching.per_token());
        assert_eq!(patches.values.len(), patches.positions.len() * patching.side().pow(2) * 3);
        assert!(patches.values.iter().all(|value| (0.0..=1.0).contains(value)));
    }
    true
}

/// A sound's file: numbers throughout, as many at 16 kHz as its length says, and clips that cover it.
pub fn sound(data: &[u8]) -> bool {
    let Ok(wave) = sound::decode(data) else { return false };
    assert!(RATES.contains(&wave.rate) && (1..=MAX_SAMPLES).contains(&(wave.samples.len() as u64)));
    assert!(wave.samples.iter().all(|sample| sample.is_finite()));
    let len = (wave.samples.len() as u64 * 16_000).div_ceil(u64::from(wave.rate)) as usize;
    let samples = wave.at_16_khz();
    assert_eq!(samples.len(), len);
    let clips = sound::clips(&samples, sound::MAX_CLIP);
    assert_eq!((clips[0].start, clips[clips.len() - 1].end), (0, len));
    for clip in clips {
        assert!((1..=MAX_CLIP).contains(&clip.len()));
        if let Ok(mel) = sound::log_mel(&samples[clip]) {
            assert!(mel.valid >= 1 && mel.valid <= mel.n_frames());
        }
    }
    true
}

/// A video's file: as many frames as are seen, in the order of their times, and of whole blocks.
pub fn video(data: &[u8]) -> bool {
    // Whether there is sound is known of any file.
    video::has_sound(data);
    let Ok(shots) = video::decode(data) else { return false };
    assert!((1..=video::FRAMES).contains(&shots.len()));
    assert!(shots.iter().all(|shot| shot.seconds.is_finite() && shot.seconds >= 0.0));
    assert!(shots.is_sorted_by_key(|shot| shot.seconds));
    for shot in &shots {
        assert!(video::stamp(shot.seconds).contains(':'));
        let patches = shot.picture.patches(Patching::Blocks);
        assert!((1..=Budget::FRAME.tokens()).contains(&patches.soft_tokens));
    }
    true
}
