//! Decoders of others may panic on files that nobody foresaw: with overflow checks, symphonia 0.6 does where a WAV header
//! claims more channels than its mask has bits. To callers, that is a damaged file.

use std::panic::{AssertUnwindSafe, catch_unwind};

use crate::Error;

/// What `decode` returns, or an error where it panics. The panic's own message goes where panics go.
///
/// `decode` must own what it changes: nothing of it is seen again after a panic.
pub(crate) fn guarded<T>(format: &'static str, decode: impl FnOnce() -> Result<T, Error>) -> Result<T, Error> {
    catch_unwind(AssertUnwindSafe(decode)).unwrap_or_else(|_| {
        Err(Error::Damaged { format, why: "its decoder stumbled over something it didn't expect".to_owned() })
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_panic_is_a_damaged_file() {
        let error = guarded::<()>("PNG", || panic!("index out of bounds")).unwrap_err();
        assert_eq!(error.to_string(), "the PNG file is damaged: its decoder stumbled over something it didn't expect");
    }
}
