//! How many threads are worth starting: physical cores this process may use.
//!
//! The standard library already minds affinity and cgroup quota; here hyper-threads of one core are counted
//! once, because two of them share the units the kernels saturate.

use std::collections::HashSet;
use std::fs;

/// Physical cores in this process's affinity mask, at most the cgroup's quota; at least 1.
pub fn usable_cores() -> usize {
    let logical = std::thread::available_parallelism().map_or(1, usize::from);
    physical_cores(|path| fs::read_to_string(path).ok()).map_or(logical, |cores| cores.clamp(1, logical))
}

/// Distinct cores among the allowed CPUs, where the system's files tell. A core is known by the list of its CPUs, as cores'
/// numbers may begin again in every cluster. CPUs that are allowed but not there have no such file.
fn physical_cores(read: impl Fn(&str) -> Option<String>) -> Option<usize> {
    let status = read("/proc/self/status")?;
    let list = status.lines().find_map(|line| line.strip_prefix("Cpus_allowed_list:"))?;
    let core = |cpu| read(&format!("/sys/devices/system/cpu/cpu{cpu}/topology/thread_siblings_list"));
    let cores: HashSet<String> = parse_list(list.trim())?.into_iter().filter_map(core).collect();
    (!cores.is_empty()).then_some(cores.len())
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

    /// Cores of a machine where these CPUs are allowed and those with siblings listed are there.
    fn cores(allowed: &str, siblings: &[&str]) -> Option<usize> {
        physical_cores(|path| match path {
            "/proc/self/status" => Some(format!("Name:\tcarat\nCpus_allowed:\tff\nCpus_allowed_list:\t{allowed}\n")),
            _ => {
                let cpu = path.strip_prefix("/sys/devices/system/cpu/cpu")?;
                let cpu: usize = cpu.strip_suffix("/topology/thread_siblings_list")?.parse().ok()?;
                siblings.get(cpu).map(|list| format!("{list}\n"))
            }
        })
    }

    #[test]
    fn cpus_of_a_core_count_once() {
        assert_eq!(cores("0-3", &["0-1", "0-1", "2-3", "2-3"]), Some(2));
        assert_eq!(cores("0-3", &["0,2", "1,3", "0,2", "1,3"]), Some(2));
        assert_eq!(cores("1-2", &["0-1", "0-1", "2-3", "2-3"]), Some(2));
    }

    #[test]
    fn cores_of_all_clusters_count() {
        // RK3588: three clusters, in each of which `core_id` begins at 0.
        assert_eq!(cores("0-7", &["0", "1", "2", "3", "4", "5", "6", "7"]), Some(8));
    }

    #[test]
    fn cpus_that_are_not_there_do_not_count() {
        assert_eq!(cores("0-127", &["0-1", "0-1", "2-3", "2-3"]), Some(2));
        assert_eq!(cores("0-127", &[]), None);
    }

    #[test]
    fn at_least_one_core_is_usable() {
        assert!(usable_cores() >= 1);
    }
}
