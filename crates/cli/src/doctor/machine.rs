//! What the system tells about itself, from `/proc` and `/sys`. Where those aren't, little is known.

use std::fs;
use std::path::Path;

/// Facts about a machine; `None` is what the system doesn't tell.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Machine {
    /// The processor's name.
    pub cpu: Option<String>,
    /// Logical processors that this process may use.
    pub processors: usize,
    /// Bytes of memory.
    pub memory: Option<u64>,
    /// Bytes that the control group allows, where it is a limit.
    pub cgroup_memory: Option<u64>,
    /// Processors that the control group allows, where it is a limit.
    pub cgroup_cpus: Option<f64>,
    /// `always`, `madvise` or `never`.
    pub huge_pages: Option<String>,
    /// How the clock is chosen, e.g. `powersave`.
    pub governor: Option<String>,
    /// Processes that wanted to run, averaged over the last minute.
    pub load: Option<f64>,
}

impl Machine {
    /// This one, now.
    pub fn look() -> Self {
        Machine::read(Path::new("/"), std::thread::available_parallelism().map_or(1, usize::from))
    }

    fn read(root: &Path, processors: usize) -> Self {
        let text = |path: &str| fs::read_to_string(root.join(path)).ok();
        let groups = text("proc/self/cgroup").unwrap_or_default();
        let own = groups.lines().find_map(|line| line.strip_prefix("0::/")).unwrap_or_default();
        let groups = root.join("sys/fs/cgroup");
        let limits = |file: &str| -> Vec<String> {
            let dirs = groups.join(own);
            let dirs: Vec<_> = dirs.ancestors().take_while(|dir| dir.starts_with(&groups)).collect();
            dirs.into_iter().filter_map(|dir| fs::read_to_string(dir.join(file)).ok()).collect()
        };
        Machine {
            cpu: text("proc/cpuinfo").and_then(|text| cpu_name(&text)),
            processors,
            memory: text("proc/meminfo").and_then(|text| kib(&text, "MemTotal:")),
            cgroup_memory: limits("memory.max").iter().filter_map(|text| text.trim().parse().ok()).min(),
            cgroup_cpus: limits("cpu.max").iter().filter_map(|text| quota(text)).min_by(f64::total_cmp),
            huge_pages: text("sys/kernel/mm/transparent_hugepage/enabled").and_then(|text| chosen(&text)),
            governor: text("sys/devices/system/cpu/cpu0/cpufreq/scaling_governor").map(|text| text.trim().to_owned()),
            load: text("proc/loadavg").and_then(|text| text.split(' ').next()?.parse().ok()),
        }
    }
}

/// x86 says `model name`, ARM at times `Model`.
fn cpu_name(text: &str) -> Option<String> {
    let field = |name: &str| {
        text.lines().find_map(|line| {
            let (key, value) = line.split_once(':')?;
            (key.trim() == name).then(|| value.trim().to_owned())
        })
    };
    field("model name").or_else(|| field("Model"))
}

fn kib(text: &str, name: &str) -> Option<u64> {
    let line = text.lines().find_map(|line| line.strip_prefix(name))?;
    line.trim().strip_suffix("kB")?.trim().parse::<u64>().ok()?.checked_mul(1024)
}

/// `QUOTA PERIOD` in microseconds; `max` is none.
fn quota(text: &str) -> Option<f64> {
    let (quota, period) = text.trim().split_once(' ')?;
    Some(quota.parse::<f64>().ok()? / period.parse::<f64>().ok()?)
}

/// The word in brackets.
fn chosen(text: &str) -> Option<String> {
    Some(text.split_once('[')?.1.split_once(']')?.0.to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_machine_is_read_from_its_files() {
        let root = std::env::temp_dir().join(format!("carat-machine-{}", std::process::id()));
        let write = |path: &str, text: &str| {
            let path = root.join(path);
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::write(path, text).unwrap();
        };
        write("proc/cpuinfo", "processor\t: 0\nmodel name\t: Some CPU @ 3 GHz\n");
        write("proc/meminfo", "MemTotal:       16 kB\nMemFree:        1 kB\n");
        write("proc/loadavg", "1.50 1.00 0.50 2/300 1234\n");
        write("proc/self/cgroup", "0::/outer/own\n");
        write("sys/fs/cgroup/outer/own/memory.max", "max\n");
        write("sys/fs/cgroup/outer/memory.max", "4096\n");
        write("sys/fs/cgroup/outer/own/cpu.max", "150000 100000\n");
        write("sys/fs/cgroup/outer/cpu.max", "max 100000\n");
        write("sys/kernel/mm/transparent_hugepage/enabled", "always [madvise] never\n");
        write("sys/devices/system/cpu/cpu0/cpufreq/scaling_governor", "powersave\n");
        let machine = Machine::read(&root, 4);
        fs::remove_dir_all(&root).unwrap();
        let expected = Machine {
            cpu: Some("Some CPU @ 3 GHz".into()),
            processors: 4,
            memory: Some(16 * 1024),
            cgroup_memory: Some(4096),
            cgroup_cpus: Some(1.5),
            huge_pages: Some("madvise".into()),
            governor: Some("powersave".into()),
            load: Some(1.5),
        };
        assert_eq!(machine, expected);
    }

    #[test]
    fn a_machine_that_tells_nothing_is_fine() {
        let machine = Machine::read(Path::new("/no/such/root"), 2);
        assert_eq!(machine, Machine { processors: 2, ..Machine::default() });
    }
}
