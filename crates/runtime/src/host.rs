//! What this machine has to give: memory that is free for a model, and the most a process has used.
//!
//! Read from `/proc` and the control group's files, because a container's limit is usually below the
//! machine's. Where neither exists nothing is known, and nothing is refused.

use std::fs;
use std::path::Path;

/// Bytes that can be taken without swapping or being killed: the least of the kernel's `MemAvailable` and what
/// is left under the control group's limit. `None` where the system doesn't say.
pub fn available_memory() -> Option<u64> {
    let machine = fs::read_to_string("/proc/meminfo").ok().and_then(|text| kib_field(&text, "MemAvailable:"));
    let group = group_left(Path::new("/sys/fs/cgroup"), &fs::read_to_string("/proc/self/cgroup").unwrap_or_default());
    machine.into_iter().chain(group).min()
}

/// The largest resident set of this process so far, in bytes. `None` where the system doesn't say.
pub fn peak_memory() -> Option<u64> {
    kib_field(&fs::read_to_string("/proc/self/status").ok()?, "VmHWM:")
}

/// Lets [`peak_memory`] start again from what is resident now, where the system can do that.
pub fn reset_peak_memory() {
    // Linux `proc(5)`, clear_refs: 5 resets the peak. A failure leaves a peak that is too high, never too low.
    let _ = fs::write("/proc/self/clear_refs", "5");
}

/// Of what this process has resident of mapped files, itself and its libraries apart, the share in large pages. `None` where
/// the system doesn't say, or nothing is mapped.
///
/// The system's cache holds a file in the pages it came in: in large ones if it was read or written in large pieces while memory was
/// whole. Reading through small ones costs an answer some 10 %.
pub fn share_in_large_pages() -> Option<f64> {
    let program = std::env::current_exe().ok()?;
    share_of(&fs::read_to_string("/proc/self/smaps").ok()?, program.to_str()?)
}

/// The same of the text of `smaps`.
fn share_of(smaps: &str, program: &str) -> Option<f64> {
    let (mut counts, mut resident, mut large) = (false, 0, 0);
    for line in smaps.lines() {
        // A mapping begins with `START-END PERMISSIONS OFFSET DEVICE INODE PATH`; then come its fields.
        if line.split_once(' ').is_some_and(|(range, _)| range.contains('-')) {
            let path = line.splitn(6, ' ').nth(5).unwrap_or_default().trim_start();
            counts = path.starts_with('/') && path != program && !path.contains(".so");
        } else if counts {
            resident += kib_field(line, "Rss:").unwrap_or(0);
            large += kib_field(line, "FilePmdMapped:").unwrap_or(0);
        }
    }
    (resident > 0).then(|| large as f64 / resident as f64)
}

/// A `name: N kB` line of `/proc`, in bytes.
fn kib_field(text: &str, name: &str) -> Option<u64> {
    let line = text.lines().find_map(|line| line.strip_prefix(name))?;
    line.trim().strip_suffix("kB")?.trim().parse::<u64>().ok()?.checked_mul(1024)
}

/// What the tightest control group (version 2) from the process's own up to the root leaves; page cache that
/// can be dropped counts as free.
fn group_left(root: &Path, proc_self_cgroup: &str) -> Option<u64> {
    let own = proc_self_cgroup.lines().find_map(|line| line.strip_prefix("0::"))?.trim_start_matches('/');
    root.join(own).ancestors().take_while(|dir| dir.starts_with(root)).filter_map(left_in).min()
}

fn left_in(dir: &Path) -> Option<u64> {
    let number = |file: &str| fs::read_to_string(dir.join(file)).ok()?.trim().parse::<u64>().ok();
    // "max", or no file, is no limit.
    let limit = number("memory.max")?;
    let used = number("memory.current")?;
    let stat = fs::read_to_string(dir.join("memory.stat")).unwrap_or_default();
    let cached =
        stat.lines().find_map(|line| line.strip_prefix("inactive_file ")?.trim().parse::<u64>().ok()).unwrap_or(0);
    Some(limit.saturating_sub(used.saturating_sub(cached)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn fields_of_proc_are_read_in_bytes() {
        let text = "MemTotal:       16 kB\nMemAvailable:   7 kB\n";
        assert_eq!(kib_field(text, "MemAvailable:"), Some(7 * 1024));
        assert_eq!(kib_field(text, "VmHWM:"), None);
        assert_eq!(kib_field("VmHWM: many kB\n", "VmHWM:"), None);
    }

    #[test]
    fn pages_of_mapped_models_count_and_no_others() {
        let smaps = "\
            7f7ade400000-7f7b30673000 r--s 00000000 fe:00 13 \
                        /models/my model.gguf\n\
            Size:            1345996 kB\nRss:                 300 kB\nFilePmdMapped:       225 kB\nVmFlags: rd mr\n\
            55faffab9000-55faffabb000 r-xp 00000000 fe:00 24                     /bin/carat\n\
            Rss:                1000 kB\nFilePmdMapped:         0 kB\n\
            7f9c2bfc8000-7f9c2bfcc000 r--p 00000000 fe:00 99    /usr/lib/libc.so.6\n\
            Rss:                1000 kB\nFilePmdMapped:         0 kB\n\
            7f9c24011000-7f9c244b9000 rw-p 00000000 00:00 0 \n\
            Rss:                1000 kB\nFilePmdMapped:         0 kB\n";
        assert_eq!(share_of(smaps, "/bin/carat"), Some(0.75));
        assert_eq!(share_of("", "/bin/carat"), None);
    }

    #[test]
    fn the_tightest_group_on_the_way_up_counts() {
        let root = std::env::temp_dir().join(format!("carat-groups-{}", std::process::id()));
        let own = root.join("outer/own");
        fs::create_dir_all(&own).unwrap();
        fs::write(own.join("memory.max"), "max\n").unwrap();
        fs::write(own.join("memory.current"), "10\n").unwrap();
        fs::write(root.join("outer/memory.max"), "1000\n").unwrap();
        fs::write(root.join("outer/memory.current"), "700\n").unwrap();
        fs::write(root.join("outer/memory.stat"), "anon 1\ninactive_file 200\n").unwrap();
        let left = group_left(&root, "0::/outer/own\n");
        let none = group_left(&root, "12:memory:/old\n");
        fs::remove_dir_all(&root).unwrap();
        assert_eq!(left, Some(500));
        assert_eq!(none, None);
    }

    #[cfg(target_os = "linux")]
    #[test]
    fn this_machine_says_something() {
        assert!(available_memory().unwrap() > 0);
        assert!(peak_memory().unwrap() > 0);
    }
}
