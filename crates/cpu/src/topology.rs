//! How many threads are worth starting: physical cores this process may use.
//!
//! The standard library already minds affinity and cgroup quota; here hyper-threads of one core are counted
//! once, because two of them share the units the kernels saturate.

use std::collections::HashSet;
use std::fs;

/// Physical cores in this process's affinity mask, at most the cgroup's quota; at least 1.
pub fn usable_cores() -> usize {
    let logical = std::thread::available_parallelism().map_or(1, usize::from);
    physical_cores().map_or(logical, |cores| cores.clamp(1, logical))
}

/// Distinct `(package, core)` pairs among the allowed CPUs, where the system tells.
fn physical_cores() -> Option<usize> {
    let status = fs::read_to_string("/proc/self/status").ok()?;
    let list = status.lines().find_map(|line| line.strip_prefix("Cpus_allowed_list:"))?;
    let mut cores = HashSet::new();
    for cpu in parse_list(list.trim())? {
        let read = |what: &str| fs::read_to_string(format!("/sys/devices/system/cpu/cpu{cpu}/topology/{what}")).ok();
        cores.insert((read("physical_package_id")?, read("core_id")?));
    }
    Some(cores.len())
}

/// `0-3,8` as numbers.
fn parse_list(list: &str) -> Option<Vec<usize>> {
    let mut cpus = Vec::new();
    for part in list.split(',') {
        let (first, last) = part.split_once('-').unwrap_or((part, part));
        cpus.extend(first.parse::<usize>().ok()?..=last.parse::<usize>().ok()?);
    }
    Some(cpus)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn cpu_lists_with_ranges_are_read() {
        assert_eq!(parse_list("0-2,5"), Some(vec![0, 1, 2, 5]));
        assert_eq!(parse_list("7"), Some(vec![7]));
        assert_eq!(parse_list("x"), None);
    }

    #[test]
    fn at_least_one_core_is_usable() {
        assert!(usable_cores() >= 1);
    }
}
