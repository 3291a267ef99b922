//! Decoders of others may panic on files that nobody foresaw: built with overflow checks, symphonia 0.6 does where a WAV
//! header claims more channels than its mask has bits. To callers, that is a damaged file, and nothing is printed.

use std::cell::Cell;
use std::panic::{AssertUnwindSafe, catch_unwind, set_hook, take_hook};
use std::sync::Once;

use crate::Error;

thread_local! {
    /// Whether a panic of this thread will be caught here.
    static GUARDED: Cell<bool> = const { Cell::new(false) };
}

/// What `decode` returns, or an error where it panics.
///
/// `decode` must own what it changes: nothing of it is seen again after a panic.
pub(crate) fn guarded<T>(format: &'static str, decode: impl FnOnce() -> Result<T, Error>) -> Result<T, Error> {
    silence_guarded_panics();
    let outer = GUARDED.replace(true);
    let result = catch_unwind(AssertUnwindSafe(decode));
    GUARDED.set(outer);
    result.unwrap_or_else(|_| {
        Err(Error::Damaged { format, why: "its decoder stumbled over something it didn't expect".to_owned() })
    })
}

/// Puts a hook before the one in place, once: it keeps silent where a panic is caught and passes on all others. A hook
/// that the program sets later replaces it, and then says what it wants.
fn silence_guarded_panics() {
    static HOOK: Once = Once::new();
    // The hook can't be changed while a panic is under way.
    if std::thread::panicking() {
        return;
    }
    HOOK.call_once(|| {
        let others = take_hook();
        set_hook(Box::new(move |panic| {
            if !GUARDED.get() {
                others(panic);
            }
        }));
    });
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicUsize, Ordering};

    use super::*;

    /// Hooks belong to the process, so one test sees what becomes of them.
    #[test]
    fn a_panic_is_a_damaged_file_and_only_others_reach_the_hook() {
        static SEEN: AtomicUsize = AtomicUsize::new(0);
        let others = take_hook();
        set_hook(Box::new(move |panic| {
            if panic.payload().downcast_ref::<&str>().is_some_and(|text| text.starts_with("seen by the hook")) {
                SEEN.fetch_add(1, Ordering::Relaxed);
            } else {
                others(panic);
            }
        }));
        for _ in 0..2 {
            let error = guarded::<()>("PNG", || panic!("seen by the hook, if at all")).unwrap_err();
            let text = "the PNG file is damaged: its decoder stumbled over something it didn't expect";
            assert_eq!(error.to_string(), text);
        }
        assert_eq!(SEEN.load(Ordering::Relaxed), 0, "a guarded panic is silent");
        assert!(catch_unwind(|| panic!("seen by the hook")).is_err());
        assert_eq!(SEEN.load(Ordering::Relaxed), 1, "others are not");
    }
}
