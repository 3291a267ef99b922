//! What would make models faster here: each rule looks at the facts and says what to do.

use super::Report;
use crate::output;

/// Other processes that keep this share of the processors busy are worth a word.
const BUSY: f64 = 0.5;

/// What there is to say, most telling first.
pub fn of(report: &Report) -> Vec<String> {
    let rules = [debug_build, plain_kernels, busy, quota, governor, memory, as_stored, models];
    rules.into_iter().filter_map(|rule| rule(report)).collect()
}

fn debug_build(report: &Report) -> Option<String> {
    (!report.release).then(|| "this program was built for debugging: build it with --release".into())
}

fn plain_kernels(report: &Report) -> Option<String> {
    let plain = report.isas[0] == "scalar";
    plain.then(|| "this processor has none of AVX-512 (VNNI), AVX2 and NEON (dot product): expect it to be slow".into())
}

fn busy(report: &Report) -> Option<String> {
    let load = report.machine.load.filter(|load| *load > BUSY * report.machine.processors as f64)?;
    Some(format!(
        "about {load:.1} other processes compete for the {} processors: stop them for full speed",
        report.machine.processors
    ))
}

fn quota(report: &Report) -> Option<String> {
    let quota = report.machine.cgroup_cpus.filter(|quota| quota.fract() > 0.01 || *quota < 1.0)?;
    Some(format!("the control group's quota of {quota:.2} processors stops threads in between: give it a whole number"))
}

fn governor(report: &Report) -> Option<String> {
    let governor = report.machine.governor.as_deref().filter(|governor| *governor == "powersave")?;
    Some(format!("the clock follows `{governor}`: `performance` is faster where the driver has no say of its own"))
}

/// Weights that don't stay in memory are read from the disk again for each token.
fn memory(report: &Report) -> Option<String> {
    let available = report.available_memory?;
    let models = report.models.iter().map(|model| &model.installed);
    let model = models.filter(|model| model.bytes > available).max_by_key(|model| model.bytes)?;
    Some(format!(
        "{} ({}) is more than the {} that are free and will be read from the disk over and over: a smaller \
         quantisation, as e2b:q4_0, or more memory",
        model.name,
        output::bytes(model.bytes),
        output::bytes(available)
    ))
}

/// Models that kernels read as they are stored, and could read faster.
fn as_stored(report: &Report) -> Option<String> {
    let names: Vec<_> = report.models.iter().filter(|m| m.is_packable).map(|m| m.installed.name.to_string()).collect();
    let (first, list) = (names.first()?, names.join(", "));
    Some(format!("weights are read as stored: `carat pack {first}` writes them once more in a faster order ({list})"))
}

fn models(report: &Report) -> Option<String> {
    report.models.is_empty().then(|| "no models are here: `carat pull e2b:q4_0` gets the smallest".into())
}

#[cfg(test)]
mod tests {
    use super::super::{Model, machine::Machine};
    use super::*;
    use carat_hub::installed::Installed;

    fn model(bytes: u64) -> Model {
        let installed = Installed {
            name: "org/m".parse().unwrap(),
            path: "/m".into(),
            dtype: None,
            is_drafter: false,
            bytes,
            last_used: None,
        };
        Model { installed, is_packable: false, most_tokens: None }
    }

    fn good() -> Report {
        Report {
            machine: Machine { processors: 4, load: Some(0.3), cgroup_cpus: Some(4.0), ..Machine::default() },
            isas: vec!["avx2", "scalar"],
            threads: 4,
            available_memory: Some(1 << 30),
            limits: None,
            cache: "/c".into(),
            free_disk: None,
            models: vec![model(1 << 20)],
            release: true,
        }
    }

    /// One change to a good machine brings one piece of advice.
    #[track_caller]
    fn check(change: impl Fn(&mut Report), says: &str) {
        let mut report = good();
        change(&mut report);
        let advice = of(&report);
        assert!(advice.len() == 1 && advice[0].contains(says), "{advice:?}");
    }

    #[test]
    fn a_good_machine_needs_no_advice() {
        assert!(of(&good()).is_empty());
    }

    #[test]
    fn each_weakness_is_named_with_its_remedy() {
        check(|r| r.release = false, "--release");
        check(|r| r.isas = vec!["scalar"], "none of AVX-512");
        check(|r| r.machine.load = Some(3.5), "3.5 other processes compete for the 4 processors");
        check(|r| r.machine.cgroup_cpus = Some(1.5), "quota of 1.50 processors");
        check(|r| r.machine.governor = Some("powersave".into()), "`performance` is faster");
        check(|r| r.models.push(model(10 << 30)), "org/m (10.0 GiB) is more than the 1.00 GiB");
        check(|r| r.models.push(Model { is_packable: true, ..model(1) }), "`carat pack org/m`");
        check(|r| r.models.clear(), "carat pull e2b:q4_0");
    }
}
