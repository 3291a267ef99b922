//! Segments as subtitles: SubRip (`.srt`) and WebVTT (`.vtt`).
//!
//! SubRip has no standard; what players agree on is a number, two times and lines up to an empty one. WebVTT is
//! <https://www.w3.org/TR/webvtt1/>: `-->` can't stand in a text, and `&` and `<` are written as entities.

use super::Segment;

/// What a WebVTT file begins with.
pub const VTT_HEADER: &str = "WEBVTT\n\n";

/// A segment in SubRip, the `number`th from 1, with the empty line that ends it.
pub fn srt(number: usize, segment: &Segment) -> String {
    let (start, end) = (time(segment.start, ','), time(segment.end, ','));
    format!("{number}\n{start} --> {end}\n{}\n\n", one_line(&segment.text))
}

/// A segment in WebVTT, with the empty line that ends it; `VTT_HEADER` comes before the first.
pub fn vtt(segment: &Segment) -> String {
    let text = one_line(&segment.text).replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;");
    format!("{} --> {}\n{text}\n\n", time(segment.start, '.'), time(segment.end, '.'))
}

fn one_line(text: &str) -> String {
    text.split_whitespace().collect::<Vec<_>>().join(" ")
}

/// Hours, minutes, seconds and, behind `point`, milliseconds.
fn time(seconds: f64, point: char) -> String {
    let ms = (seconds * 1e3).round() as u64;
    format!("{:02}:{:02}:{:02}{point}{:03}", ms / 3_600_000, ms / 60_000 % 60, ms / 1000 % 60, ms % 1000)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn segment(start: f64, end: f64, text: &str) -> Segment {
        Segment { start, end, text: text.into(), said: None, notice: None }
    }

    #[test]
    fn cues_have_times_to_the_millisecond_and_a_line() {
        let cue = segment(3725.0405, 3726.9996, "A &  B\n\n<--> C");
        assert_eq!(srt(12, &cue), "12\n01:02:05,041 --> 01:02:07,000\nA & B <--> C\n\n");
        assert_eq!(vtt(&cue), "01:02:05.041 --> 01:02:07.000\nA &amp; B &lt;--&gt; C\n\n");
    }
}
