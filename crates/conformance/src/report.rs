//! Collects disagreements and says them so that the cause is near: operation, case, index, what was found,
//! what was expected, what was allowed.
//!
//! A run goes on after a disagreement, so that one report shows the whole pattern.

use crate::bounds::Approx;

/// Disagreements listed in full; the rest is counted.
const LISTED: usize = 24;

/// What a run found so far.
#[derive(Debug)]
pub struct Report {
    backend: String,
    operation: &'static str,
    case: String,
    cases: usize,
    values: usize,
    failures: Vec<String>,
}

impl Report {
    /// An empty report about `backend`.
    pub fn new(backend: String) -> Self {
        Report { backend, operation: "", case: String::new(), cases: 0, values: 0, failures: Vec::new() }
    }

    /// Says which case runs now; named if the backend panics in it.
    pub fn begin(&mut self, operation: &'static str, case: String) {
        self.operation = operation;
        self.case = case;
        self.cases += 1;
    }

    /// Compares an output with what it should be: each value with its limit, and all together with what their
    /// typical errors add up to.
    pub fn compare(&mut self, found: &[f32], expected: &Approx) {
        assert_eq!(found.len(), expected.exact.len(), "conformance: lengths of one comparison");
        self.values += found.len();
        let worst = |i: &usize| (f64::from(found[*i]) - expected.exact[*i]).abs() / expected.limit[*i];
        let wrong: Vec<usize> = (0..found.len())
            .filter(|&i| {
                let error = (f64::from(found[i]) - expected.exact[i]).abs();
                error.is_nan() || error > expected.limit[i]
            })
            .collect();
        if let Some(i) = wrong.iter().copied().max_by(|a, b| worst(a).total_cmp(&worst(b))) {
            let error = f64::from(found[i]) - expected.exact[i];
            self.fail(format!(
                "{} of {} values wrong, worst [{i}]: found {:e}, expected {:e}, error {error:e}, bound {:e}; first wrong [{}]",
                wrong.len(),
                found.len(),
                found[i],
                expected.exact[i],
                expected.limit[i],
                wrong[0],
            ));
            return;
        }
        // Fewer values say little about a typical error: see `bounds`.
        if found.len() < 64 {
            return;
        }
        let squares = |values: &mut dyn Iterator<Item = f64>| values.map(|v| v * v).sum::<f64>().sqrt();
        let error = squares(&mut found.iter().zip(&expected.exact).map(|(&f, e)| f64::from(f) - e));
        let allowed = squares(&mut expected.typical.iter().copied());
        if error > allowed {
            let size = squares(&mut expected.exact.iter().copied());
            self.fail(format!(
                "each value is within its bound, together they are not: ‖error‖ {error:e}, bound {allowed:e}, ‖expected‖ {size:e}"
            ));
        }
    }

    /// Requires that values outside the first rows were left alone.
    pub fn untouched(&mut self, found: &[f32], expected: f32) {
        if let Some(i) = found.iter().position(|&v| v != expected) {
            self.fail(format!(
                "value {i} after the last row was overwritten: found {:e}, expected {expected:e} as before",
                found[i]
            ));
        }
    }

    /// Notes a disagreement in the present case.
    pub fn fail(&mut self, what: String) {
        self.failures.push(format!("{} ({}): {what}", self.operation, self.case));
    }

    /// Ends the run.
    ///
    /// # Panics
    /// With every disagreement, if there was one.
    pub fn finish(mut self) -> Summary {
        let failures = std::mem::take(&mut self.failures);
        let summary = Summary { cases: self.cases, values: self.values };
        if failures.is_empty() {
            return summary;
        }
        let more = failures.len().saturating_sub(LISTED);
        let listed: Vec<String> = failures.iter().take(LISTED).map(|f| format!("  {f}")).collect();
        self.case.clear();
        panic!(
            "{}: {} disagreements in {} cases\n{}\n  … and {more} more",
            self.backend,
            failures.len(),
            summary.cases,
            listed.join("\n")
        );
    }
}

impl Drop for Report {
    fn drop(&mut self) {
        if std::thread::panicking() && !self.case.is_empty() {
            eprintln!("{}: while in {} ({})", self.backend, self.operation, self.case);
            for failure in self.failures.iter().take(LISTED) {
                eprintln!("  {failure}");
            }
        }
    }
}

/// How much a run looked at.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Summary {
    /// Cases run.
    pub cases: usize,
    /// Values compared.
    pub values: usize,
}

#[cfg(test)]
mod tests {
    use super::*;

    fn approx(exact: &[f64], limit: f64) -> Approx {
        Approx { exact: exact.to_vec(), limit: vec![limit; exact.len()], typical: vec![limit; exact.len()] }
    }

    #[track_caller]
    fn check(found: &[f32], expected: &[f64], text: &str) {
        let mut report = Report::new("test".into());
        report.begin("add", "n=1".into());
        report.compare(found, &approx(expected, 0.1));
        let failures = std::mem::take(&mut report.failures).join("\n");
        assert!(failures.contains(text) && failures.is_empty() == text.is_empty(), "{failures}");
    }

    #[test]
    fn values_within_the_bound_pass() {
        check(&[1.0, 2.05], &[1.0, 2.0], "");
    }

    #[test]
    fn a_value_outside_the_bound_is_named() {
        check(&[1.0, 2.5], &[1.0, 2.0], "add (n=1): 1 of 2 values wrong, worst [1]: found 2.5e0, expected 2e0");
    }

    #[test]
    fn not_a_number_is_wrong() {
        check(&[f32::NAN], &[1.0], "found NaN");
    }
}
