//! An installed `ffmpeg`, for videos that aren't decoded here.
//!
//! It reads the one file it is given and nothing else, and writes to pipes: once a line for each packet, to know how many pictures
//! there are and when, once those that are seen, once the sound. Where packets don't say when, or there are fewer pictures than
//! packets, it decodes them all to know. What it may take in time and output is limited.

use std::ffi::{OsStr, OsString};
use std::io::{self, BufRead, BufReader, Read, Write};
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdout, Command, Stdio};
use std::sync::mpsc::{RecvTimeoutError, channel};
use std::time::Duration;

use carat_media::limits::{MAX_PIXELS, MAX_SECONDS, MAX_SIDE, MAX_SOUND_BYTES, MAX_VIDEO_FRAMES};
use carat_media::picture::Picture;
use carat_media::video::{Frame, Shot, sample};

/// The longest that one run may take.
pub const MAX_RUN: Duration = Duration::from_secs(600);

/// Bytes of its complaints that are kept.
const MAX_STDERR: u64 = 4096;

/// Bytes of the lines that it writes for pictures.
const MAX_LINES: u64 = 64 << 20;

/// Names the program, where it isn't `ffmpeg` on the path.
const VARIABLE: &str = "CARAT_FFMPEG";

/// What it may take a file for: containers that hold everything they show. Lists of other files are not among them.
const FORMATS: &str = "matroska,webm,mov,mp4,m4a,3gp,3g2,mj2,avi,flv,asf,mpeg,mpegvideo,mpegts,ogg,h264,hevc";

/// The program.
#[derive(Clone, Debug)]
pub struct Ffmpeg {
    program: PathBuf,
}

/// What it reads.
#[derive(Clone, Copy)]
pub enum Input<'a> {
    /// A file.
    Path(&'a Path),
    /// Bytes, through a pipe.
    Bytes(&'a [u8]),
}

impl Ffmpeg {
    /// The program that `CARAT_FFMPEG` names, or the `ffmpeg` on the path, if there is one. An empty `CARAT_FFMPEG` is none.
    pub fn find() -> Option<Self> {
        if let Some(program) = std::env::var_os(VARIABLE) {
            return (!program.is_empty()).then(|| Ffmpeg { program: program.into() });
        }
        let name = format!("ffmpeg{}", std::env::consts::EXE_SUFFIX);
        let dirs = std::env::var_os("PATH")?;
        // Not what lies where the program happens to be started.
        let dirs = std::env::split_paths(&dirs).filter(|dir| dir.is_absolute());
        let program = dirs.map(|dir| dir.join(&name)).find(|path| path.is_file())?;
        Some(Ffmpeg { program })
    }

    /// The pictures of a video that are seen.
    ///
    /// # Errors
    /// What it said, or which limit doesn't hold.
    pub fn shots(&self, input: Input<'_>) -> Result<Vec<Shot>, String> {
        let mut times = self.times(input, &["-c", "copy"])?;
        let mut shots = if times.known { self.seen(input, &times)? } else { Vec::new() };
        if !times.known || shots.len() < times.frames().len() {
            // Packets may hold pictures that aren't shown, as some of VP8's do, or those that edits leave out.
            times = self.times(input, &["-fps_mode", "passthrough", "-enc_time_base", &times.unit])?;
            if !times.known {
                return Err("its pictures don't say when they are shown".into());
            }
            shots = self.seen(input, &times)?;
        }
        let (found, frames) = (shots.len(), times.frames());
        match frames.last() {
            None => Err("it has no pictures".into()),
            Some(last) if found < frames.len() => Err(format!(
                "{found} of {} pictures can be decoded, the last of which is number {}",
                frames.len(),
                last.index + 1
            )),
            Some(_) => Ok(shots),
        }
    }

    /// When there are pictures: of packets, or of what they are decoded to.
    fn times(&self, input: Input<'_>, options: &[&str]) -> Result<Times, String> {
        let lines = [&["-map", "0:v:0"], options, &["-f", "framecrc", "-"]].concat();
        self.run(input, &lines, |out| Times::read(BufReader::new(out.take(MAX_LINES))))
    }

    /// The pictures of these that are seen, or fewer where others don't come.
    fn seen(&self, input: Input<'_>, times: &Times) -> Result<Vec<Shot>, String> {
        let frames = times.frames();
        if frames.is_empty() {
            return Ok(Vec::new());
        }
        let select = times.select(&frames);
        let most = (frames.len()).to_string();
        let pictures = ["-map", "0:v:0", "-vf", &select, "-fps_mode", "passthrough", "-frames:v", &most];
        let pictures = [&pictures[..], &["-c:v", "ppm", "-pix_fmt", "rgb24", "-f", "image2pipe", "-"]].concat();
        self.run(input, &pictures, |out| {
            let mut out = BufReader::new(out);
            let mut shots = Vec::with_capacity(frames.len());
            for frame in &frames {
                let Some(picture) = read_ppm(&mut out)? else { break };
                shots.push(Shot::new(frame.seconds, &picture));
            }
            Ok(shots)
        })
    }

    /// A video's sound as a FLAC file; `None` if it has none.
    ///
    /// # Errors
    /// What it said, or which limit doesn't hold.
    pub fn sound(&self, input: Input<'_>) -> Result<Option<Vec<u8>>, String> {
        // A second more than is taken, to be refused by those who know why.
        let seconds = (MAX_SECONDS + 1).to_string();
        let sound = ["-map", "0:a:0?", "-vn", "-t", &seconds, "-c:a", "flac", "-f", "flac", "-"];
        let read = |out: ChildStdout| {
            let mut flac = Vec::new();
            out.take(MAX_SOUND_BYTES as u64 + 1).read_to_end(&mut flac)?;
            Ok(flac)
        };
        match self.run(input, &sound, read) {
            Ok(flac) => Ok((!flac.is_empty()).then_some(flac)),
            // Said of a video without a sound track.
            Err(error) if error.contains("does not contain any stream") => Ok(None),
            Err(error) => Err(error),
        }
    }

    /// Runs it on `input` and reads what it writes.
    fn run<T>(
        &self,
        input: Input<'_>,
        options: &[&str],
        read: impl FnOnce(ChildStdout) -> io::Result<T>,
    ) -> Result<T, String> {
        let mut command = Command::new(&self.program);
        command.args(["-hide_banner", "-nostdin", "-loglevel", "error", "-protocol_whitelist", "file,pipe"]);
        command.args(["-format_whitelist", FORMATS, "-max_pixels", &MAX_PIXELS.to_string(), "-i"]);
        // A name is never taken for an option or an address.
        command.arg(match input {
            Input::Path(path) => [OsStr::new("file:"), path.as_os_str()].into_iter().collect::<OsString>(),
            Input::Bytes(_) => "pipe:0".into(),
        });
        command.args(options).stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
        if let Input::Bytes(_) = input {
            command.stdin(Stdio::piped());
        }
        let mut child = command.spawn().map_err(|error| format!("{}: {error}", self.program.display()))?;
        let (stdin, stdout, stderr) = (child.stdin.take(), child.stdout.take(), child.stderr.take());
        let (Some(stdout), Some(stderr)) = (stdout, stderr) else { return Err("it has no pipes".into()) };
        let (done, waits) = channel::<()>();
        std::thread::scope(|scope| {
            let ended = scope.spawn(move || watch(child, || waits.recv_timeout(MAX_RUN)));
            let said = scope.spawn(move || {
                let (mut text, mut stderr) = (Vec::new(), stderr);
                let read = (&mut stderr).take(MAX_STDERR).read_to_end(&mut text);
                // Whatever else it says must not block it.
                let _ = read.and_then(|_| io::copy(&mut stderr, &mut io::sink()));
                let text = String::from_utf8_lossy(&text);
                text.lines().map(str::trim).collect::<Vec<_>>().join("; ")
            });
            if let (Input::Bytes(bytes), Some(mut stdin)) = (input, stdin) {
                // It may stop reading when it has seen enough.
                scope.spawn(move || stdin.write_all(bytes));
            }
            let found = read(stdout);
            let _ = done.send(());
            let said = said.join().unwrap_or_default();
            let ended = ended.join().unwrap_or_else(|_| Err("it was lost".into()));
            match (found, ended) {
                (_, Err(reason)) => Err(reason),
                // What it complains about and goes on from is no failure.
                (Ok(found), Ok(true)) => Ok(found),
                (Err(error), _) if said.is_empty() => Err(error.to_string()),
                _ if said.is_empty() => Err("it failed and said nothing".into()),
                _ => Err(said),
            }
        })
    }
}

/// Waits for a child's end; whether it was a good one. It is killed when `finished` says that time is out.
fn watch(mut child: Child, finished: impl FnOnce() -> Result<(), RecvTimeoutError>) -> Result<bool, String> {
    let late = finished() == Err(RecvTimeoutError::Timeout);
    if late {
        // It may have ended by itself.
        let _ = child.kill();
    }
    let status = child.wait().map_err(|error| error.to_string())?;
    if late {
        return Err(format!("it took longer than {} s", MAX_RUN.as_secs()));
    }
    Ok(status.success())
}

/// When pictures are shown.
#[derive(Debug, PartialEq)]
struct Times {
    /// Seconds, as `ffmpeg` spells them: `1/12800`; `0` where it doesn't say.
    unit: String,
    /// In units, ascending; those of one time count once.
    shown: Vec<i64>,
    /// Whether all of them say when.
    known: bool,
    /// From the first picture's beginning to the last one's end: of the durations of each, not all containers tell.
    seconds: f64,
}

impl Times {
    /// Of the lines that `-f framecrc` writes: `#tb 0: 1/12800` and `0, dts, pts, duration, size, checksum`.
    fn read(lines: impl BufRead) -> io::Result<Self> {
        let mut times = Times { unit: "0".into(), shown: Vec::new(), known: true, seconds: 0.0 };
        let (mut count, mut end) = (0, i64::MIN);
        for line in lines.lines() {
            let line = line?;
            if let Some(unit) = line.strip_prefix("#tb 0: ") {
                unit.clone_into(&mut times.unit);
            } else if !line.starts_with('#') {
                count += 1;
                let mut numbers = line.split(',').skip(2).map(|field| field.trim().parse::<i64>().ok());
                // The lowest number stands for none.
                match numbers.next().flatten().filter(|&shown| shown != i64::MIN) {
                    Some(shown) => {
                        times.shown.push(shown);
                        end = end.max(shown.saturating_add(numbers.next().flatten().unwrap_or(0)));
                    }
                    None => times.known = false,
                }
            }
            if count > MAX_VIDEO_FRAMES {
                return Err(io::Error::other(format!("it has more than {MAX_VIDEO_FRAMES} pictures: cut it first")));
            }
        }
        times.shown.sort_unstable();
        times.shown.dedup();
        times.known &= count == 0 || times.unit() > 0.0;
        if let Some(&start) = times.shown.first() {
            times.seconds = (end as f64 - start as f64) * times.unit();
        }
        Ok(times)
    }

    /// In seconds; 0 where it isn't known.
    fn unit(&self) -> f64 {
        let parts = self.unit.split_once('/');
        let parts = parts.and_then(|(a, b)| Some((a.parse::<u32>().ok()?, b.parse::<u32>().ok().filter(|&b| b > 0)?)));
        parts.map_or(0.0, |(a, b)| f64::from(a) / f64::from(b))
    }

    /// The pictures that are seen, at the rate that there is on average, as torchcodec has it, which the reference reads films with.
    fn frames(&self) -> Vec<Frame> {
        let count = self.shown.len();
        sample(count, Some(count as f64 / self.seconds))
    }

    /// The filter that lets these pass. It goes by their times, since it is made anew, and would count anew, where a video's size changes.
    fn select(&self, frames: &[Frame]) -> String {
        let unit = self.unit();
        let around = |shown: i64| [-0.5, 0.5].map(|by| (shown as f64 + by) * unit);
        let times = frames.iter().map(|frame| around(self.shown[frame.index]));
        let times: Vec<String> = times.map(|[from, to]| format!("between(t\\,{from}\\,{to})")).collect();
        format!("select=({})*not(eq(t\\,prev_selected_t))", times.join("+"))
    }
}

/// The next picture of a stream of PPM files; `None` at its end.
fn read_ppm(out: &mut impl BufRead) -> io::Result<Option<Picture>> {
    let mut line = Vec::new();
    if out.take(16).read_until(b'\n', &mut line)? == 0 {
        return Ok(None);
    }
    let wrong = |what: &str| io::Error::other(format!("it wrote no picture: {what}"));
    if line.trim_ascii() != b"P6" {
        return Err(wrong("the first line is another"));
    }
    line.clear();
    out.take(32).read_until(b'\n', &mut line)?;
    out.take(32).read_until(b'\n', &mut line)?;
    let text = str::from_utf8(&line).map_err(|_| wrong("its size is no text"))?;
    let numbers: Vec<u32> = text.split_ascii_whitespace().filter_map(|word| word.parse().ok()).collect();
    let &[width, height, most] = numbers.as_slice() else { return Err(wrong("its size is not three numbers")) };
    let sides = 1..=MAX_SIDE;
    if !sides.contains(&width) || !sides.contains(&height) || u64::from(width) * u64::from(height) > MAX_PIXELS {
        return Err(wrong(&format!("{width} × {height} pixels are more than {MAX_PIXELS}, or none")));
    }
    if most != 255 {
        return Err(wrong(&format!("its values go up to {most}")));
    }
    let (width, height) = (width as usize, height as usize);
    let mut rgb = vec![0; 3 * width * height];
    out.read_exact(&mut rgb)?;
    Ok(Some(Picture { width, height, rgb }))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_say_how_many_pictures_there_are_and_how_long() {
        let read = |lines: &str| Times::read(lines.as_bytes()).unwrap();
        let of =
            |unit: &str, shown: &[i64], seconds| Times { unit: unit.into(), shown: shown.into(), known: true, seconds };
        let times = read(
            "#software: x\n#tb 0: 1/50\n#media_type 0: video\n0, 0, 2, 5, 99, 0xab\n0, 5, 7, 5, 99, 0xcd, F=0x0\n",
        );
        assert_eq!(times, of("1/50", &[2, 7], 0.2));
        assert_eq!(times.frames(), sample(2, Some(10.0)));
        let select = "select=(between(t\\,0.03\\,0.05)+between(t\\,0.13\\,0.15))*not(eq(t\\,prev_selected_t))";
        assert_eq!(times.select(&times.frames()), select);
        // Out of order, two halves of a picture, at no steady rate, and with durations that say nothing.
        let times = read(
            "#tb 0: 1/1000\n0, 0, 100, 33, 9, 0x0\n0, 33, 4067, 33, 9, 0x0\n0, 66, 1000, 0, 9, 0x0\n0, 67, 1000, 0, 9, 0x0\n",
        );
        assert_eq!(times, of("1/1000", &[100, 1000, 4067], 4.0));
        // As it writes a time that it doesn't know: of MPEG-4 in AVI.
        let unknown = "0,          0, -9223372036854775808,        1,     5199, 0x30903a74\n";
        assert!(!read(&format!("#tb 0: 1/60\n0, 1, 1, 1, 9, 0x0\n{unknown}")).known);
        assert!(!read("0, 1, 1, 1, 9, 0x0\n").known, "seconds are unknown");
        assert_eq!(read("").frames(), []);
        let many = "0, 0, 0, 1, 1, 0x0\n".repeat(MAX_VIDEO_FRAMES as usize + 1);
        assert!(Times::read(many.as_bytes()).unwrap_err().to_string().contains("108000"));
    }

    #[test]
    fn pictures_are_read_one_by_one_or_refused() {
        let mut two = &b"P6\n2 1\n255\nabcdefP6\n1 1\n255\nxyz"[..];
        let picture = |width, rgb: &[u8]| Some(Picture { width, height: 1, rgb: rgb.to_vec() });
        assert_eq!(read_ppm(&mut two).unwrap(), picture(2, b"abcdef"));
        assert_eq!(read_ppm(&mut two).unwrap(), picture(1, b"xyz"));
        assert_eq!(read_ppm(&mut two).unwrap(), None);
        for wrong in
            ["P5\n1 1\n255\nx", "P6\n0 1\n255\n", "P6\n65535 65535\n255\n", "P6\n1 1\n65535\nx", "P6\n1 1\n255\nx"]
        {
            assert!(read_ppm(&mut wrong.as_bytes()).is_err(), "{wrong}");
        }
    }
}
