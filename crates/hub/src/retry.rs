//! When to try again, and how long to wait before.
//!
//! Waits double and are drawn from their upper half, so that many clients don't come back at once. A server that
//! says how long (`Retry-After`, RFC 9110 section 10.2.3) is believed.

use std::hash::{BuildHasher, RandomState};
use std::time::{Duration, SystemTime};

use crate::Error;

/// How long to wait for a server, and how often to try again.
#[derive(Clone, Copy, Debug)]
pub struct Patience {
    /// Tries in a row that may fail, after the first.
    pub retries: u32,
    /// The wait after the first failure; it doubles with each.
    pub first_wait: Duration,
    /// The longest wait that a server may ask for.
    pub longest_wait: Duration,
    /// For a connection to stand.
    pub connect: Duration,
    /// Without a byte from the server.
    pub silence: Duration,
}

impl Default for Patience {
    fn default() -> Self {
        Patience {
            retries: 5,
            first_wait: Duration::from_millis(500),
            longest_wait: Duration::from_secs(300),
            connect: Duration::from_secs(15),
            silence: Duration::from_secs(30),
        }
    }
}

/// A try that failed.
#[derive(Debug)]
pub enum Failure {
    /// Trying again changes nothing.
    Final(Error),
    /// It may go well next time.
    Again {
        /// What was asked for.
        url: String,
        /// What happened.
        reason: String,
        /// The status that came, if one did.
        status: Option<u16>,
        /// What the server asked for.
        wait: Option<Duration>,
    },
}

impl From<Error> for Failure {
    fn from(error: Error) -> Self {
        Failure::Final(error)
    }
}

impl Failure {
    /// One that may go well next time.
    pub fn again(url: &str, reason: impl Into<String>) -> Self {
        Failure::Again { url: url.into(), reason: reason.into(), status: None, wait: None }
    }
}

/// The wait before the next try, and why it is needed.
#[derive(Debug, PartialEq, Eq)]
pub struct Pause {
    /// How long.
    pub wait: Duration,
    /// What happened.
    pub reason: String,
}

/// Counts failures in a row.
#[derive(Debug)]
pub struct Attempts<'a> {
    patience: &'a Patience,
    failures: u32,
}

impl<'a> Attempts<'a> {
    /// None yet.
    pub fn new(patience: &'a Patience) -> Self {
        Attempts { patience, failures: 0 }
    }

    /// The last try brought something.
    pub fn progress(&mut self) {
        self.failures = 0;
    }

    /// The pause before the next try, or the error if there is none.
    pub fn failed(&mut self, failure: Failure) -> Result<Pause, Error> {
        let (url, reason, status, wait) = match failure {
            Failure::Final(error) => return Err(error),
            Failure::Again { url, reason, status, wait } => (url, reason, status, wait),
        };
        self.failures += 1;
        if let (Some(wait), Some(status)) = (wait, status)
            && wait > self.patience.longest_wait
        {
            return Err(Error::Limited { url, status, wait });
        }
        if self.failures > self.patience.retries {
            return Err(Error::Network { url, reason, attempts: self.failures });
        }
        let longest = self.patience.first_wait.saturating_mul(1 << (self.failures - 1).min(16));
        Ok(Pause { wait: wait.unwrap_or_else(|| jittered(longest)), reason })
    }
}

/// Between half of `longest` and all of it.
fn jittered(longest: Duration) -> Duration {
    // The standard library's only source of randomness: each state has its own keys.
    let random = RandomState::new().hash_one(()) as f64 / u64::MAX as f64;
    longest.mul_f64(0.5 + 0.5 * random)
}

/// `Retry-After`: seconds, or a date.
pub fn retry_after(value: &str, now: SystemTime) -> Option<Duration> {
    let value = value.trim();
    if let Ok(seconds) = value.parse() {
        return Some(Duration::from_secs(seconds));
    }
    let at = httpdate::parse_http_date(value).ok()?;
    Some(at.duration_since(now).unwrap_or_default())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn patience() -> Patience {
        Patience { retries: 3, ..Patience::default() }
    }

    #[test]
    fn waits_double_within_their_bounds() {
        let patience = patience();
        let mut attempts = Attempts::new(&patience);
        for longest in [500, 1000, 2000] {
            let wait = attempts.failed(Failure::again("u", "r")).unwrap().wait.as_millis();
            assert!((longest / 2..=longest).contains(&wait), "{wait} of {longest}");
        }
        let error = attempts.failed(Failure::again("u", "no answer")).unwrap_err().to_string();
        assert!(error.starts_with("u: no answer; gave up after 4 tries"), "{error}");
    }

    #[test]
    fn progress_forgives_earlier_failures() {
        let patience = patience();
        let mut attempts = Attempts::new(&patience);
        for _ in 0..10 {
            attempts.failed(Failure::again("u", "r")).unwrap();
            attempts.progress();
        }
    }

    #[test]
    fn a_server_that_names_a_wait_is_believed_up_to_a_limit() {
        let patience = patience();
        let again = |seconds| Failure::Again {
            url: "u".into(),
            reason: "r".into(),
            status: Some(429),
            wait: Some(Duration::from_secs(seconds)),
        };
        assert_eq!(Attempts::new(&patience).failed(again(7)).unwrap().wait, Duration::from_secs(7));
        let error = Attempts::new(&patience).failed(again(4000)).unwrap_err().to_string();
        assert!(error.contains("u answered 429 and asks to wait 4000 s"), "{error}");
    }

    #[test]
    fn retry_after_is_seconds_or_a_date() {
        // The date of RFC 9110's own example, 1999-12-31 23:59:59 UTC.
        let now = SystemTime::UNIX_EPOCH + Duration::from_secs(946_684_799 - 30);
        assert_eq!(retry_after("120", now), Some(Duration::from_secs(120)));
        assert_eq!(retry_after("Fri, 31 Dec 1999 23:59:59 GMT", now), Some(Duration::from_secs(30)));
        assert_eq!(retry_after("Thu, 31 Dec 1998 23:59:59 GMT", now), Some(Duration::ZERO));
        assert_eq!(retry_after("soon", now), None);
    }
}
